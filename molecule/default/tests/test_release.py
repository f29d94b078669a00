"""The backend that was released on the machine, as an operator and an attacker would look at it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

NAME = "semiont-molecule"
RELEASE = f"/srv/slipway/{NAME}/current"


@pytest.fixture(scope="module")
def container(host: Host) -> dict[str, Any]:
    """The one container that serves, as the engine describes it."""
    ids = host.check_output(f"docker ps --quiet --filter label=org.slipway.name={NAME}").split()
    assert len(ids) == 1
    (answer,) = json.loads(host.check_output(f"docker inspect {ids[0]}"))
    assert isinstance(answer, dict)
    return answer


@pytest.fixture(scope="module")
def health(host: Host) -> dict[str, Any]:
    """What the backend answers on its public health path."""
    answer: dict[str, Any] = json.loads(host.check_output("python3 -c %s", FETCH % "/api/health"))
    return answer


FETCH = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:4000%s', timeout=5).read().decode())"


def test_the_container_is_healthy(container: dict[str, Any]) -> None:
    assert container["State"]["Health"]["Status"] == "healthy"
    assert container["RestartCount"] == 0


def test_it_runs_as_nobody_special_and_can_write_nothing_of_its_image(container: dict[str, Any]) -> None:
    assert container["Config"]["User"].split(":")[0] == "1001"
    settings = container["HostConfig"]
    assert settings["ReadonlyRootfs"] is True
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["CapAdd"]
    assert not settings["Privileged"]
    assert "no-new-privileges:true" in settings["SecurityOpt"]
    assert settings["Memory"] > 0


def test_the_edge_answers_for_it_on_loopback_alone(host: Host, container: dict[str, Any]) -> None:
    assert not container["NetworkSettings"]["Ports"]["4000/tcp"]
    assert host.socket("tcp://127.0.0.1:4000").is_listening
    assert not host.socket("tcp://0.0.0.0:4000").is_listening


def test_it_runs_by_digest(container: dict[str, Any]) -> None:
    assert "@sha256:" in container["Config"]["Image"]


def test_health_answers_with_the_version_that_was_released(host: Host, health: dict[str, Any]) -> None:
    assert health["status"] == "ok"
    tag = json.loads(host.check_output("slipway status --json"))["services"]["backend"]["tag"]
    # An image of uncommitted files has the tag dev, beside the version that those files name.
    assert health["version"].endswith("-dev") if tag == "dev" else health["version"] == tag


def test_the_database_is_reachable_and_at_its_newest_revision(host: Host) -> None:
    assert host.run("python3 -c %s", FETCH % "/api/ready").rc == 0


def test_nobody_but_root_looks_into_the_releases(host: Host) -> None:
    for path in (f"/srv/slipway/{NAME}", f"/srv/slipway/{NAME}/releases", f"{RELEASE}/"):
        assert (host.file(path).user, host.file(path).mode) == ("root", 0o700), path


def test_config_files_are_for_the_backend_to_read_and_for_nobody_to_write(host: Host) -> None:
    paths = config_files(host)
    assert [path.rpartition("/")[2] for path in paths] == ["molecule.json", "semiont.json"]
    for path in paths:
        file = host.file(path)
        assert (file.uid, file.gid, file.mode) == (0, 1001, 0o440), path


def test_no_secret_shows_in_docker_inspect_or_in_the_ledger(host: Host, container: dict[str, Any]) -> None:
    config = json.loads(host.file(config_files(host)[0]).content_string)
    secret = config["auth"]["jwtSecret"]
    assert len(secret) >= 32
    image = host.check_output(f"docker image inspect {container['Image']}")
    shown = [json.dumps(container), image, host.file(f"/srv/slipway/{NAME}/ledger.jsonl").content_string]
    assert not [text for text in shown if secret in text]


def config_files(host: Host) -> list[str]:
    """The JSON files of the release that serves, in the order of their names."""
    found = host.check_output(f"find {RELEASE}/config -name '*.json'").split()
    return sorted(found, key=lambda path: path.rpartition("/")[2])
