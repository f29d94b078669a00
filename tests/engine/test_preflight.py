"""The host's half of preflight, on a host where an older release serves: it says what is in the way and by what."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.docker

Environment = Any
"""The class of tests/engine/conftest.py, which a test file cannot import."""


@pytest.fixture(autouse=True)
def untouched(serving: Environment) -> Iterator[None]:
    """Whatever preflight finds, it changes nothing."""
    before = serving.standing(), sorted(serving.folder.rglob("*"))
    yield
    assert (serving.standing(), sorted(serving.folder.rglob("*"))) == before
    assert serving.version() == "1.0"


def refusal(environment: Environment, services: dict[str, Any], min_free_mb: int = 1) -> Any:
    with pytest.raises(environment.Refused) as refused:
        environment.preflight(services, min_free_mb)
    assert refused.value.code == 1
    return refused.value


def test_a_host_where_nothing_is_in_the_way_answers_with_digests(serving: Environment) -> None:
    answer = serving.preflight(serving.services("1.1"))
    assert answer["changed"] is False
    assert answer["digests"]["app"].startswith("sha256:")
    assert answer["current"] == serving.current()


def test_a_digest_that_the_lock_gives_is_taken_as_it_is(serving: Environment) -> None:
    services = serving.services("1.1")
    digest = serving.preflight(services)["digests"]["app"]
    services["app"].update(tag="whatever", digest=digest)
    assert serving.preflight(services)["digests"]["app"] == digest


def test_a_tag_that_does_not_exist_is_named(serving: Environment) -> None:
    services = serving.services("9.9.9-build.1")
    refused = refusal(serving, services)
    assert refused.what == f"The image {services['app']['image']}:9.9.9-build.1 does not exist in its registry."
    assert refused.do_next == "Push that tag, or set the tag to one that exists."


def test_a_digest_that_no_registry_has_is_named(serving: Environment) -> None:
    refused = refusal(serving, serving.services("1.0", digest="sha256:" + "0" * 64))
    assert "does not exist in its registry." in refused.what


def test_a_registry_that_does_not_answer_is_named(serving: Environment) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        registry = f"127.0.0.1:{probe.getsockname()[1]}"
    refused = refusal(serving, serving.services("1.0", image=f"{registry}/shop/app"))
    assert refused.what == f"The registry {registry} does not answer."
    assert "connection refused" in refused.details


def test_a_port_that_a_process_listens_on_is_taken_by_that_process(serving: Environment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused = refusal(serving, serving.services("1.1", publish=port))
    assert refused.what.startswith(f"Port {port}, which app publishes, is taken by ")
    assert refused.what.endswith(f", process {os.getpid()}.")
    assert refused.do_next == "Stop it, or set app_services.app.publish to a free port."


def test_a_port_that_a_foreign_container_publishes_is_taken_by_that_container(serving: Environment) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name = "slipway-test-foreign"
    image = serving.containers()[0]["Image"]
    # Its own command fails without a configuration; asleep it publishes its port all the same.
    given = ["--detach", "--rm", f"--name={name}", f"--publish=127.0.0.1:{port}:8000", "--entrypoint=/usr/bin/python3"]
    command = ["docker", "run", *given, image, "-c", "import time; time.sleep(60)"]
    subprocess.run(command, check=True, capture_output=True)
    try:
        refused = refusal(serving, serving.services("1.1", publish=port))
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)
    assert refused.what == f"Port {port}, which app publishes, is taken by the container {name}."


def test_a_port_of_another_environment_is_taken_by_that_environment(
    serving: Environment, environment: Environment
) -> None:
    refused = refusal(environment, environment.services("1.0", publish=serving.port))
    assert refused.what == f"Port {serving.port}, which app publishes, is taken by the environment {serving.name}."


def test_a_disk_that_is_nearly_full_is_named_with_both_numbers(serving: Environment) -> None:
    refused = refusal(serving, serving.services("1.1"), min_free_mb=10**9)
    assert refused.what.startswith("The disk is nearly full: ")
    assert refused.what.endswith(", 1000000000 MB are needed.")
    assert "release_min_free_mb" in refused.do_next
