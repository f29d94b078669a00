"""Secrets that changed and secrets that leaked, on the way back to an older release on real Docker."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.release import fingerprint

pytestmark = [pytest.mark.docker, pytest.mark.long]

Environment = Any
"""The class of tests/engine/conftest.py, which a test file cannot import."""

JWT = "app:/app/config/app.json#auth.jwtSecret"
TOKEN = "app:env:API_TOKEN"
KEY = "k" * 32
"""Of the fingerprints in tests/engine/conftest.py."""


def deploy(environment: Environment, version: str, day: str, **change: Any) -> str:
    """A release whose secrets are all of that day."""
    change = {"config": {"auth": {"jwtSecret": jwt(day)}, "site": f"site of {version}"}, **change}
    return str(environment.deploy(version, secret_env={"API_TOKEN": token(day)}, **change).id)


def jwt(day: str) -> str:
    return f"jwt-of-{day}-never-to-be-seen"


def token(day: str) -> str:
    return f"$token-of-{day}-never-${{to}}-be-seen"


def said(environment: Environment, *arguments: str, code: int = 0) -> str:
    done = environment.slipway(*arguments, "--name", environment.name)
    assert done.returncode == code, done.stdout + done.stderr
    return str(done.stdout or done.stderr)


def inside(environment: Environment) -> tuple[dict[str, Any], dict[str, str]]:
    """What the container that runs was given: its config file and its environment."""
    [container] = environment.containers(running=True)
    [config] = [Path(mount["Source"]) for mount in container["Mounts"] if mount["Type"] == "bind"]
    return json.loads(config.read_text()), dict(one.split("=", 1) for one in container["Config"]["Env"])


def manifest(environment: Environment, release: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((environment.folder / "releases" / release / "manifest.json").read_text())
    return found


def assert_no_secret_is_told(environment: Environment) -> None:
    kept = [*environment.folder.glob("*.json*"), *environment.folder.glob("releases/*/manifest.json")]
    assert len(kept) > 3
    told = "".join([*environment.said, *(path.read_text() for path in kept)])
    assert "never-" not in told


def test_a_rollback_names_the_secrets_that_get_an_older_value_before_it_switches(settled: Environment) -> None:
    first, second = deploy(settled, "1.0", "monday"), deploy(settled, "1.1", "tuesday")
    names = f"It brings back the older values of: {JWT}, {TOKEN}.\n"
    asked = said(settled, "rollback", "--check")
    assert asked == f"{names}{settled.name} would serve {first} again (before: {second}).\n"
    assert settled.current() == second
    answer = json.loads(said(settled, "rollback", "--check", "--json"))
    assert (answer["older_secrets"], answer["made_from"]) == ([JWT, TOKEN], "")
    assert said(settled, "rollback") == f"{names}{settled.name} serves {first} again (before: {second}).\n"
    assert inside(settled)[0]["auth"]["jwtSecret"] == jwt("monday")
    assert_no_secret_is_told(settled)


def test_a_revoked_secret_is_not_restored_but_the_older_image_and_configuration_are(
    environment: Environment, poll: Callable[[Environment], Any]
) -> None:
    first = deploy(environment, "1.0", "monday", replicas=2)
    second = deploy(environment, "1.1", "tuesday")
    revoked = said(environment, "revoke", JWT, "--reason", "was in a ticket")
    assert revoked == f"Revoked: {JWT} as it is in {first}. A rollback there uses today's value.\n"
    expected = said(environment, "rollback", "--check", first[:6])
    assert environment.current() == second
    with poll(environment) as seen:
        told = said(environment, "rollback")
    made = environment.current()
    assert told == (
        f"A new release {made} is made of the image and configuration of {first}, with today's secrets, because {JWT} "
        f"was revoked.\n{environment.name} serves {made} (before: {second}).\n"
    )
    assert expected == told.replace(" serves ", " would serve ")
    assert seen.failures == []
    assert environment.version() == "1.0"
    for container in environment.containers(running=True):
        env = dict(one.split("=", 1) for one in container["Config"]["Env"])
        assert env["API_TOKEN"] == token("tuesday"), "all that changed since is today's"
        [config] = [Path(mount["Source"]) for mount in container["Mounts"] if mount["Type"] == "bind"]
        assert json.loads(config.read_text()) == {"auth": {"jwtSecret": jwt("tuesday")}, "site": "site of 1.0"}
    assert len(environment.containers(running=True)) == 2
    found = manifest(environment, made)
    assert (found["made_from"], found["secrets"]) == (first, manifest(environment, second)["secrets"])
    assert found["secrets"] == {JWT: fingerprint(KEY, jwt("tuesday")), TOKEN: fingerprint(KEY, token("tuesday"))}
    last = environment.ledger()[-1]
    assert (last.phase, last.release, last.result) == ("rollback", made, "good")
    assert last.reason == f"Made from {first} with today's secrets: {JWT} was revoked."
    # It is a release as any other: as declared, one to leave and to come back to.
    status = said(environment, "status")
    assert f"{first} holds revoked values of {JWT}; a rollback there uses today's." in status
    assert "healthy\n" in status
    assert said(environment, "rollback").endswith(f"serves {second} again (before: {made}).\n")
    assert said(environment, "rollback").endswith(f"serves {made} again (before: {second}).\n")
    answer = json.loads(said(environment, "rollback", first, "--json"))
    assert (answer["changed"], answer["release"]) == (False, made), "it was made once"
    assert_no_secret_is_told(environment)


def test_a_rollback_to_a_made_release_takes_a_migration_back_as_the_contract_says(environment: Environment) -> None:
    first = deploy(environment, "1.0", "monday")
    migrate = {**environment.services("2.0")["app"]["migrate"], "on_rollback": "down"}
    deploy(environment, "2.0", "tuesday", migrate=migrate)
    said(environment, "revoke", TOKEN, JWT, "--reason", "was in a ticket")
    said(environment, "rollback")
    assert (environment.version(), inside(environment)[1]["API_TOKEN"]) == ("1.0", token("tuesday"))
    assert manifest(environment, environment.current())["made_from"] == first
    assert (environment.volume() / "schema").read_text() == "0001"
    assert_no_secret_is_told(environment)


def test_what_was_revoked_is_refused_when_the_inventory_still_has_it(environment: Environment) -> None:
    deploy(environment, "1.0", "monday")
    second = deploy(environment, "1.0", "tuesday")
    said(environment, "revoke", JWT, "--reason", "was in a ticket")
    with pytest.raises(environment.Refused) as error:
        deploy(environment, "1.1", "monday")
    assert error.value.what == f"The value that the inventory has for {JWT} was revoked."
    assert environment.current() == second
    assert_no_secret_is_told(environment)


def test_revoking_is_refused_until_the_secret_was_rotated_and_is_done_once(environment: Environment) -> None:
    first = deploy(environment, "1.0", "monday")
    refusal = said(environment, "revoke", JWT, "--reason", "was in a ticket", code=1)
    assert "Rotate it first: change it in the vault and deploy." in refusal
    unknown = said(environment, "revoke", "app:env:NO_TOKEN", "--reason", "was in a ticket", code=1)
    assert f"The secrets that are known: {JWT}, {TOKEN}." in unknown
    said(environment, "revoke", JWT, code=64)
    deploy(environment, "1.0", "tuesday")
    file = environment.folder / "revoked.json"
    would = said(environment, "revoke", JWT, "--reason", "was in a ticket", "--check")
    assert would == f"Would be revoked: {JWT} as it is in {first}. A rollback there uses today's value.\n"
    assert not file.exists()
    said(environment, "revoke", JWT, "--reason", "was in a ticket", "--by", "bob")
    assert file.stat().st_mode & 0o777 == 0o600
    assert environment.ledger()[-1].reason == f"{JWT}: was in a ticket"
    before = file.read_bytes()
    again = json.loads(said(environment, "revoke", JWT, "--reason", "was in a ticket", "--json"))
    assert (again["changed"], again["revoked"], file.read_bytes()) == (False, {}, before)
    assert_no_secret_is_told(environment)


def test_a_call_that_is_killed_while_a_release_is_made_is_done_by_the_next_one(environment: Environment) -> None:
    deploy(environment, "1.0", "monday")
    second = deploy(environment, "1.1", "tuesday")
    said(environment, "revoke", JWT, "--reason", "was in a ticket")
    made = json.loads(said(environment, "rollback", "--check", "--json"))["release"]
    with subprocess.Popen(environment.command("rollback", "--name", environment.name)) as call:
        deadline = time.monotonic() + 20
        while not (environment.folder / "releases" / made).exists():
            assert time.monotonic() < deadline
        call.kill()
    assert environment.current() == second
    assert environment.version() == "1.1"
    said(environment, "rollback")
    assert (environment.current(), environment.version()) == (made, "1.0")
