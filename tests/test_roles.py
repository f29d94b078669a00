"""What a role documents is what it has: every variable, with the default that is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).parents[1] / "roles"
NAMES = sorted(path.name for path in ROLES.iterdir() if (path / "meta" / "argument_specs.yml").exists())


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    return found


def defaults(role: str) -> dict[str, Any]:
    return load(ROLES / role / "defaults" / "main.yml")


def options(role: str) -> dict[str, Any]:
    found: dict[str, Any] = load(ROLES / role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    return found


@pytest.mark.parametrize("role", NAMES)
def test_every_variable_of_a_role_is_documented(role: str) -> None:
    assert defaults(role).keys() <= options(role).keys()
    assert all(option["description"] and option["type"] for option in options(role).values())


@pytest.mark.parametrize("role", NAMES)
def test_every_documented_default_is_the_real_one(role: str) -> None:
    documented = {name: option["default"] for name, option in options(role).items() if "default" in option}
    real = {name: value for name, value in defaults(role).items() if not options(role)[name].get("required")}
    # One that is worked out from other variables may be said in words.
    said = {name for name in real if "{{" in str(real[name]) and name in options(role)}
    assert {name: value for name, value in documented.items() if name not in said} == {
        name: value for name, value in real.items() if name not in said
    }


@pytest.mark.parametrize("role", NAMES)
def test_what_is_required_has_no_default_that_would_do(role: str) -> None:
    required = {name for name, option in options(role).items() if option.get("required")}
    assert not any(defaults(role).get(name) for name in required)


@pytest.mark.parametrize("role", NAMES)
def test_every_variable_carries_its_roles_name(role: str) -> None:
    # The words of the contract and of the kit belong to the inventory and are shared by all roles.
    shared = ("app_", "slipway_", "base_image", "allow_unsafe_migrations")
    assert all(name.startswith((f"{role}_", *shared)) for name in options(role))
