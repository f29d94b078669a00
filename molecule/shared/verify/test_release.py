"""What was released on each app host, as an operator and an attacker would look at it.

What the release promises is read from its manifest on the host; whether it keeps that is seen from outside.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://app"]

# A status of 400 and more is an answer like any other.
ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
connection.request("GET", sys.argv[2])
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""
SECRET_KEY = re.compile(r"secret|passw|token|credential", re.IGNORECASE)
STARTING = 60.0
"""Seconds that a container may take until its image's own check has looked at it."""
PASSWORD_OF_A_URL = re.compile(r"://[^/@:]*:([^/@]+)@")


@pytest.fixture(scope="module")
def folder(name: str) -> str:
    """Where the host keeps the environment."""
    return f"/srv/slipway/{name}"


@pytest.fixture(scope="module")
def manifest(host: Host, folder: str) -> dict[str, Any]:
    """What the release that serves promises."""
    if not host.file(f"{folder}/current").exists:
        pytest.fail(f"No release serves on {host.backend.host}. Deploy one: playbooks/site.yml.", pytrace=False)
    answer: dict[str, Any] = json.loads(host.file(f"{folder}/current/manifest.json").content_string)
    return answer


@pytest.fixture(scope="module")
def containers(host: Host, name: str, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """All that runs of it, as the engine describes it."""
    ids = host.check_output(f"docker ps --quiet --filter label=org.slipway.name={name}").split()
    if not ids:
        pytest.fail(f"{manifest['id']} is to serve on {host.backend.host}, and none of it runs.", pytrace=False)
    answer: list[dict[str, Any]] = json.loads(host.check_output(f"docker inspect {' '.join(ids)}"))
    return answer


@pytest.fixture(scope="module")
def answering(manifest: dict[str, Any]) -> dict[str, int]:
    """Service that listens -> the port of the loopback address where it answers."""
    services = {name: spec for name, spec in manifest["services"].items() if spec["port"]}
    return {name: spec["port"] if spec["publish"] is None else spec["publish"] for name, spec in services.items()}


def test_it_stands_as_its_release_declares(status: dict[str, Any]) -> None:
    """Also its database: that the schema is the one that the release has migrated to."""
    assert status["complaint"] == ""
    assert status["differences"] == []


def test_nothing_runs_but_the_release_that_serves(manifest: dict[str, Any], containers: list[dict[str, Any]]) -> None:
    running = sorted(one["Config"]["Labels"]["org.slipway.service"] for one in containers)
    # A job has run when the release was deployed, and ended.
    standing = {name: spec for name, spec in manifest["services"].items() if spec["kind"] != "job"}
    assert running == sorted(name for name, spec in standing.items() for _ in range(spec["replicas"]))
    assert {one["Config"]["Labels"]["org.slipway.release"] for one in containers} == {manifest["id"]}


def test_each_container_is_healthy_as_far_as_it_can_say(host: Host, containers: list[dict[str, Any]]) -> None:
    for one in containers:
        assert one["State"]["Running"], one["Name"]
        if "Health" in one["State"]:
            # One that was started just now has not been asked yet.
            end = time.monotonic() + STARTING
            asked = ["docker inspect --format '{{.State.Health.Status}}' %s", one["Id"]]
            while (found := host.check_output(*asked)) == "starting" and time.monotonic() < end:
                time.sleep(1)
            assert found == "healthy", one["Name"]


def test_each_runs_as_nobody_special_and_may_do_nothing_special(
    manifest: dict[str, Any], containers: list[dict[str, Any]]
) -> None:
    for one in containers:
        spec, settings = manifest["services"][one["Config"]["Labels"]["org.slipway.service"]], one["HostConfig"]
        assert one["Config"]["User"] == spec["user"]
        assert settings["ReadonlyRootfs"] is spec["read_only"]
        assert settings["CapDrop"] == ["ALL"]
        assert {cap.removeprefix("CAP_") for cap in settings["CapAdd"] or []} == set(spec["cap_add"])
        assert not settings["Privileged"]
        assert "no-new-privileges:true" in settings["SecurityOpt"]
        assert settings["Memory"] > 0
        assert settings["NanoCpus"] > 0
        assert settings["PidsLimit"] > 0


def test_each_runs_by_digest(manifest: dict[str, Any], containers: list[dict[str, Any]]) -> None:
    for one in containers:
        assert "@sha256:" in one["Config"]["Image"]
        assert one["Config"]["Image"] == manifest["images"][one["Config"]["Labels"]["org.slipway.service"]]


def test_containers_open_no_port_and_the_edge_answers_for_them_on_loopback(
    host: Host, containers: list[dict[str, Any]], answering: dict[str, int]
) -> None:
    assert not [one["Name"] for one in containers if any(one["NetworkSettings"]["Ports"].values())]
    for port in answering.values():
        assert host.socket(f"tcp://127.0.0.1:{port}").is_listening
        assert not host.socket(f"tcp://0.0.0.0:{port}").is_listening
        assert not host.socket(f"tcp://:::{port}").is_listening


def test_each_service_answers_as_promised_with_the_version_of_its_image(
    host: Host, manifest: dict[str, Any], containers: list[dict[str, Any]], answering: dict[str, int]
) -> None:
    labels = {one["Config"]["Labels"]["org.slipway.service"]: one["Config"]["Labels"] for one in containers}
    for service, port in answering.items():
        if health := manifest["services"][service]["health"]:
            code, _, body = host.check_output("python3 -c %s %s %s", ASK, str(port), health["path"]).partition(" ")
            assert int(code) == health["status"]
            for key, wanted in health["json"].items():
                assert is_as(wanted, at(json.loads(body), key)), f"{service} says {key} is not {wanted}: {body}"
            if (version := labels[service].get("org.opencontainers.image.version")) and health["version"]:
                assert at(json.loads(body), health["version"]) == version


def test_nobody_but_root_looks_into_the_releases(host: Host, folder: str) -> None:
    for path in (folder, f"{folder}/releases", f"{folder}/current/"):
        assert (host.file(path).user, host.file(path).mode) == ("root", 0o700), path


def test_config_files_are_for_the_application_to_read_and_for_nobody_to_write(host: Host, folder: str) -> None:
    # Nobody writes, other users do not read, and each is root's.
    found = f"find {folder}/current/ -path '*/current/config/*' -type f"
    assert host.check_output(f"{found} '(' -perm /0337 -o ! -user root ')'") == ""


def test_no_secret_shows_in_docker_inspect_or_in_the_ledger(
    host: Host, folder: str, containers: list[dict[str, Any]]
) -> None:
    files = host.check_output(f"find {folder}/current/ -path '*/current/config/*' -name '*.json'").split()
    secrets = {secret for path in files for secret in secrets_in(json.loads(host.file(path).content_string))}
    images = host.check_output("docker image inspect " + " ".join(one["Image"] for one in containers))
    shown = {
        "containers": json.dumps(containers),
        "images": images,
        "the ledger": host.file(f"{folder}/ledger.jsonl").content_string,
    }
    # Whatever fails prints where, and no secret.
    where = [place for place, text in shown.items() if any(secret in text for secret in secrets)]
    assert not where


def at(document: Any, key: str) -> Any:
    """What stands under a dotted key; None where nothing does."""
    for part in key.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document


def is_as(wanted: Any, found: Any) -> bool:
    """Whether a value meets an expectation of the contract: a plain value, or a mapping of what it may be."""
    if not isinstance(wanted, dict):
        return bool(found == wanted)
    return (
        ("equals" not in wanted or found == wanted["equals"])
        and ("one_of" not in wanted or found in wanted["one_of"])
        and ("present" not in wanted or (found is not None) == wanted["present"])
    )


def secrets_in(document: Any, under: str = "") -> Iterator[str]:
    """What a JSON document calls a secret, and the passwords of its URLs."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from secrets_in(value, key)
    elif isinstance(document, list):
        for value in document:
            yield from secrets_in(value, under)
    elif isinstance(document, str):
        yield from ([document] if SECRET_KEY.search(under) and document else PASSWORD_OF_A_URL.findall(document))
