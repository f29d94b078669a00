"""What `--check --diff` shows of a release before anything is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.docker

Environment = Any
"""The class of tests/engine/conftest.py, which a test file cannot import."""

SECRET = "never-to-be-seen-0123456789-abcdefghij"
OTHER = "another-secret-0123456789-abcdefghij"
MIGRATE = {**{verb: ["migrate", verb] for verb in ("up", "plan", "status")}, "backup": "none"}


@pytest.fixture(scope="module")
def standing(make_environment: Callable[[], Environment]) -> Environment:
    """An environment on which 1.0 serves."""
    environment = make_environment()
    environment.deploy("1.0", migrate=MIGRATE)
    return environment


def diff(environment: Environment, version: str, **change: Any) -> dict[str, dict[str, str]]:
    """What a check run shows: file -> its difference."""
    before = environment.standing(), environment.ledger(), sorted(environment.folder.rglob("*"))
    release = environment.prepare(version, migrate=MIGRATE, **change)
    shown = environment.of_run("stage", release=release, check=True)["diff"]
    assert (environment.standing(), environment.ledger(), sorted(environment.folder.rglob("*"))) == before
    assert SECRET not in json.dumps(shown)
    assert OTHER not in json.dumps(shown)
    return {entry["after_header"].partition(" ")[0]: entry for entry in shown}


def come(entry: dict[str, str]) -> list[str]:
    """The lines that are new."""
    old = entry["before"].splitlines()
    return [line.strip() for line in entry["after"].splitlines() if line not in old]


def test_a_new_image_is_one_line_of_the_compose_file(standing: Environment) -> None:
    shown = diff(standing, "1.1")
    assert set(shown) == {"compose.yml", "manifest.json"}
    [line] = come(shown["compose.yml"])
    assert line.startswith('"image": "')
    assert '"app": "1.1"' in come(shown["manifest.json"])


def test_a_config_file_is_shown_line_by_line_and_a_changed_secret_as_changed(standing: Environment) -> None:
    shown = diff(standing, "1.0", config={"auth": {"jwtSecret": OTHER}, "site": "Café 5$"})
    assert come(shown["config/app/app/config/app.json"]) == ['"jwtSecret": "[redacted 2]"', "},", '"site": "Café 5$"']


def test_a_secret_of_the_environment_is_not_shown(standing: Environment) -> None:
    shown = diff(standing, "1.0", secret_env={"PLAIN": OTHER}, env={"PRICE": "5$ or ${PRICE}"})
    lines = come(shown["compose.yml"])
    assert any(line.startswith('"PLAIN": "[redacted ') for line in lines)
    assert any(line.startswith('"PRICE": "5$$ or $${PRICE}"') for line in lines)


def test_a_first_release_is_all_new(environment: Environment) -> None:
    shown = diff(environment, "1.0")
    assert {entry["before"] for entry in shown.values()} == {""}
    assert set(shown) == {"compose.yml", "manifest.json", "config/app/app/config/app.json"}


def test_a_compose_file_that_was_broken_by_hand_keeps_nobody_from_looking(standing: Environment) -> None:
    path = standing.folder / "current/compose.yml"
    before = path.read_bytes()
    path.write_text("services: [")
    assert "(Compose cannot read it)" in diff(standing, "1.1")["compose.yml"]["before"]
    path.write_bytes(before)
