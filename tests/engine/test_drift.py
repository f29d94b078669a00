"""What somebody changed by hand on a host, as `slipway status` tells it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.docker

Environment = Any
"""The class of tests/engine/conftest.py, which a test file cannot import."""

MIGRATE = {**{verb: ["migrate", verb] for verb in ("up", "plan", "status")}, "backup": "none"}


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def status(environment: Environment) -> tuple[int, dict[str, Any]]:
    done = environment.slipway("status", "--name", environment.name, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def told(environment: Environment) -> list[tuple[str, str, str, str]]:
    code, found = status(environment)
    assert code == 2
    return [(one["where"], one["field"], one["declared"], one["found"]) for one in found["differences"]]


@pytest.fixture(scope="module")
def once(make_environment: Callable[[], Environment]) -> Environment:
    """The environment behind `standing`."""
    environment = make_environment()
    environment.deploy("1.0", migrate=MIGRATE)
    return environment


@pytest.fixture
def standing(once: Environment) -> Iterator[Environment]:
    """An environment that is just as declared, before a test and after it."""
    code, found = status(once)
    assert (code, found["differences"]) == (0, [])
    yield once
    code, found = status(once)
    assert (code, found["differences"]) == (0, [])


def container(environment: Environment) -> str:
    [found] = environment.containers(running=True)
    return str(found["Id"])


def test_limits_that_were_changed(standing: Environment) -> None:
    mine = container(standing)
    docker("update", "--memory=48m", "--memory-swap=128m", "--cpus=0.5", "--pids-limit=32", "--restart=no", mine)
    assert told(standing) == [
        ("app", "memory", "64 MiB", "48 MiB"),
        ("app", "cpus", "1", "0.5"),
        ("app", "pids", "200", "32"),
        ("app", "restart", "unless-stopped", "no"),
    ]
    docker(
        "update", "--memory=64m", "--memory-swap=128m", "--cpus=1", "--pids-limit=200", "--restart=unless-stopped", mine
    )


def test_a_network_that_was_joined(standing: Environment) -> None:
    docker("network", "connect", "bridge", container(standing))
    assert told(standing) == [("app", "network bridge", "absent", "")]
    docker("network", "disconnect", "bridge", container(standing))


def test_a_config_file_that_was_edited_is_told_without_what_is_in_it(standing: Environment) -> None:
    path = standing.folder / "current/config/app/app/config/app.json"
    before = path.read_bytes()
    path.write_text('{"auth": {"jwtSecret": "edited-by-hand"}}')
    assert told(standing) == [("config/app/app/config/app.json", "content", "as staged", "changed")]
    path.write_bytes(before)


def test_a_compose_file_that_compose_no_longer_reads(standing: Environment) -> None:
    path = standing.folder / "current/compose.yml"
    before = path.read_bytes()
    path.write_text("services: [")
    assert told(standing) == [
        ("compose.yml", "content", "as staged", "changed"),
        ("compose.yml", "content", "a Compose file", "nothing that Compose reads"),
    ]
    path.write_bytes(before)


def test_a_container_of_nobody_knows_what_release(standing: Environment) -> None:
    name = f"{standing.name}-stranger"
    [mine] = standing.containers(running=True)
    docker("create", f"--name={name}", f"--label=org.slipway.name={standing.name}", mine["Config"]["Image"])
    assert told(standing) == [(name, "release", "one of this host", "none")]
    docker("rm", name)


def test_a_site_of_the_edge_that_was_edited(standing: Environment) -> None:
    site = standing.root / "edge/switch" / f"{standing.name}.caddy"
    before = site.read_bytes()
    site.write_bytes(before + b"# a note\n")
    assert told(standing) == [("edge", "site", "as the release says", "changed")]
    site.write_bytes(before.replace(standing.current().encode(), b"0" * 16))
    assert told(standing) == [("edge", "route", standing.current(), "0" * 16)]
    site.write_bytes(before)


def test_a_schema_that_was_moved_is_what_the_database_itself_says(standing: Environment) -> None:
    schema = standing.volume() / "schema"
    before, owner = schema.read_bytes(), schema.stat()
    schema.unlink()
    assert told(standing) == [("app", "schema", "0001", "none")]
    # Who only asks how it stands, as the end of a deploy does, does not wait for the application.
    assert standing.ask("report", name=standing.name)["status"]["differences"] == []
    assert len(standing.ask("report", name=standing.name, schema=True)["status"]["differences"]) == 1
    schema.write_text("9999")
    how = "unknown: `migrate status` ended with exit code 1"
    assert told(standing) == [("app", "schema", "0001", how)]
    schema.write_bytes(before)
    os.chown(schema, owner.st_uid, owner.st_gid)


def test_a_container_that_is_gone_is_told_and_the_next_deploy_makes_it_anew(standing: Environment) -> None:
    docker("rm", "--force", container(standing))
    assert told(standing) == [
        ("app", "container", "present", "absent"),
        ("app", "schema", "0001", "unknown: its container does not run"),
    ]
    assert "NOT HEALTHY: the service app has no container" in standing.slipway("status", "-n", standing.name).stdout
    standing.deploy("1.0", migrate=MIGRATE)


def test_a_second_release_that_runs(standing: Environment) -> None:
    first = standing.current()
    standing.deploy("1.1", migrate=MIGRATE)
    [old] = [one for one in standing.containers() if one["Config"]["Labels"]["org.slipway.release"] == first]
    docker("start", old["Id"])
    assert told(standing) == [(old["Name"].lstrip("/"), "state", "stopped, kept to go back to", "running")]
    docker("stop", old["Id"])


def test_looking_takes_less_than_a_second(standing: Environment) -> None:
    took = []
    for _ in range(3):
        began = time.monotonic()
        status(standing)
        took.append(time.monotonic() - began)
    # Its best time: this machine has other things to do.
    assert min(took) < 1
