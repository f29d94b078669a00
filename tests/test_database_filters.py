"""The filters of the role database, called as Ansible does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

FILE = Path(__file__).parents[1] / "plugins/filter/database.py"
BUNDLED = {"mode": "bundled"}
GROUPS = {"all": ["a", "d"], "app": ["a"], "database": ["d"]}


@pytest.fixture(scope="module")
def filters() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("database_filters", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.FilterModule().filters()
    return found


@pytest.mark.parametrize(
    ("groups", "host", "data", "given"),
    [
        (GROUPS, "d", BUNDLED, False),
        (GROUPS, "d", {}, True),
        (GROUPS, "d", {"mode": "external"}, True),
        (GROUPS, "a", {}, False),
        ({**GROUPS, "app": ["a", "d"]}, "d", {"mode": "external"}, False),
        ({**GROUPS, "edge": ["d"]}, "d", {}, False),
        ({"all": ["a"], "app": ["a"]}, "a", {}, False),
    ],
)
def test_a_host_is_left_alone_that_is_there_for_a_given_database(
    groups: dict[str, list[str]], host: str, data: dict[str, str], given: bool, filters: dict[str, Any]
) -> None:
    assert filters["slipway_is_given"](groups, host, data) == given


def test_what_app_database_leaves_to_the_kit_is_filled_in(filters: dict[str, Any]) -> None:
    found = filters["slipway_database"](BUNDLED, "shop-production")
    names = {key: found[key] for key in ("name", "user", "owner", "version", "port")}
    assert names == {
        "name": "shop_production",
        "user": "shop_production",
        "owner": "shop_production_owner",
        "version": 17,
        "port": 5432,
    }


def test_an_embedded_one_has_no_connection_and_no_secrets(filters: dict[str, Any]) -> None:
    assert filters["slipway_database_connection"]({"mode": "embedded"}, "shop", "", {}, "/ca") == {}
    assert filters["slipway_database_secrets"]({"mode": "embedded"}, "shop") == {}


def test_each_role_is_connected_with_its_password(filters: dict[str, Any]) -> None:
    passwords = {"user": "u" * 32, "owner": "o" * 32}
    found = filters["slipway_database_connection"](BUNDLED, "shop", "10.20.0.21", passwords, "/ca")
    assert f"shop:{'u' * 32}@10.20.0.21:5432/shop" in found["url"]
    assert f"shop_owner:{'o' * 32}@10.20.0.21:5432/shop" in found["migrations_url"]


def test_what_is_wrong_is_one_sentence_of_the_check_and_keeps_no_secret_from_being_made(
    filters: dict[str, Any],
) -> None:
    wrong = {"mode": "magic"}
    assert "Compare it with docs/database.md." in filters["slipway_database_problems"](wrong, "shop", GROUPS, {})[0]
    assert filters["slipway_database_secrets"](wrong, "shop") == {}
    with pytest.raises(AnsibleFilterError, match="app_database is wrong"):
        filters["slipway_database"](wrong, "shop")
