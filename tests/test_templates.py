"""The Compose file is laid out by Ansible's own templar, and says what the engine rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from slipway.edge import Edge, Tier
from slipway.render import render
from tests import database

KIT = Path(__file__).parents[1]
TEMPLATE = KIT / "compose" / "app" / "compose.yml.j2"
EDGE = sorted((KIT / "compose" / "edge").glob("*.j2"))


def laid_out(compose: dict[str, Any], name: str = "shop") -> str:
    variables = {"__release_compose": compose, "slipway_name": name}
    templar = Templar(loader=DataLoader(), variables=variables)
    found: str = templar.template(trust_as_template(TEMPLATE.read_text()))
    return found


@pytest.mark.parametrize(
    "value",
    [
        "5$ or ${PRICE}",
        "yes",
        "0123",
        "1e3",
        "null",
        "~",
        "",
        " blank ",
        "a: b # c",
        "- x",
        "'\"",
        "{{ not_jinja }}",
        "{% raw %}",
        "a\nb\n",
        "ü\u2028😀",
        "x" * 400,
        "\ttab",
        "@at",
        "2025-01-01",
        "0x10",
        "12:30:45",
    ],
)
def test_every_value_is_read_back_as_it_was(value: str, services: dict[str, Any]) -> None:
    services["api"]["env"]["VALUE"] = value
    services["api"]["command"] = ["serve", value]
    compose = render(services, name="shop", environment="p", digests={"api": "sha256:1"}, key="k" * 32)["compose"]
    text = laid_out(compose)
    assert yaml.safe_load(text) == compose
    assert compose["services"]["api"]["environment"]["VALUE"].replace("$$", "$") == value


def test_it_says_what_it_is_and_that_a_change_is_a_new_release(services: dict[str, Any]) -> None:
    first = laid_out({"services": {}}, name="shop-production").splitlines()[0]
    assert first.startswith("# A release of shop-production. Do not edit: a change is a new release")


def test_a_variable_that_is_not_there_is_an_error() -> None:
    templar = Templar(loader=DataLoader(), variables={"slipway_name": "shop"})
    with pytest.raises(Exception, match="__release_compose"):
        templar.template(trust_as_template(TEMPLATE.read_text()))


@pytest.mark.parametrize("template", EDGE, ids=lambda path: path.name)
def test_the_edge_is_laid_out_from_the_defaults_of_its_role(template: Path) -> None:
    defaults = yaml.safe_load((KIT / "roles/edge/defaults/main.yml").read_text())
    variables = {**defaults, "__edge_image": "registry.example/slipway/edge@sha256:1", "__edge_tier": ""}
    text = Templar(loader=DataLoader(), variables=variables).template(trust_as_template(template.read_text()))
    assert "{{" not in text
    if template.name == "compose.yml.j2":
        services = yaml.safe_load(text)["services"]
        assert {name: body["image"] for name, body in services.items()} == dict.fromkeys(
            ("entry", "switch"), "registry.example/slipway/edge@sha256:1"
        )
    else:
        assert text.count("{") == text.count("}")


@pytest.mark.parametrize("template", EDGE, ids=lambda path: path.name)
def test_an_edge_without_its_variables_is_an_error(template: Path) -> None:
    with pytest.raises(Exception, match="is undefined"):
        Templar(loader=DataLoader(), variables={}).template(trust_as_template(template.read_text()))


def test_the_database_is_laid_out_from_the_defaults_of_its_role() -> None:
    image = "registry.example/slipway/postgres@sha256:1"
    document = yaml.safe_load(database.compose("shop-production", image, port=5433))
    assert document["name"] == "slipway-shop-production-database"
    [(name, service)] = document["services"].items()
    assert (name, service["image"], service["user"]) == ("postgres", image, "999:999")
    assert (service["network_mode"], service["read_only"], service["cap_drop"]) == ("host", True, ["ALL"])
    assert (service["stop_signal"], service["stop_grace_period"]) == ("SIGINT", "120s")
    assert service["environment"]["PGPORT"] == "5433"
    assert document["volumes"]["data"]["name"] == "${DATABASE_VOLUME:?}"


@pytest.mark.parametrize(
    "variable", ["slipway_name", "__database_declared", "database_connections", "__database_reference"]
)
def test_a_database_without_one_of_its_variables_is_an_error(variable: str) -> None:
    variables = {**database.variables("shop", "image", port=5432, version=17)}
    del variables[variable]
    with pytest.raises(Exception, match="is undefined"):
        Templar(loader=DataLoader(), variables=variables).template(trust_as_template(database.TEMPLATE.read_text()))


@pytest.mark.parametrize(("version", "provider"), [(15, False), (16, False), (17, True), (18, True)])
def test_text_is_ordered_by_postgresql_itself_where_it_can(version: int, provider: bool) -> None:
    document = yaml.safe_load(database.compose("shop", "image", version=version))
    arguments = document["services"]["postgres"]["environment"]["POSTGRES_INITDB_ARGS"]
    assert ("--locale-provider=builtin" in arguments) == provider
    assert "--data-checksums" in arguments


def entry(tier: str) -> str:
    defaults = yaml.safe_load((KIT / "roles/edge/defaults/main.yml").read_text())
    template = (KIT / "compose/edge/entry.caddyfile.j2").read_text()
    text: str = Templar(loader=DataLoader(), variables={**defaults, "__edge_tier": tier}).template(
        trust_as_template(template)
    )
    return text


def test_without_an_edge_tier_the_entry_is_what_it_always_was() -> None:
    lines = entry("").splitlines()
    assert lines[1] == "{"
    assert "tier" not in entry("")


def test_with_an_edge_tier_the_entry_says_where_it_is_and_nothing_else_differs(tmp_path: Path) -> None:
    text = entry("10.0.0.11 for 10.0.0.2 10.0.0.3")
    first, _, _, *rest = text.splitlines()
    assert [first, *rest] == entry("").splitlines()
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "entry.caddyfile").write_text(text)
    assert Edge(tmp_path).tier() == Tier(address="10.0.0.11", edges=("10.0.0.2", "10.0.0.3"))


@pytest.mark.parametrize(
    ("host", "installed", "waits"),
    [
        ("app1", None, True),
        ("app1", {"changed": True, "first": False}, True),
        ("app1", {"changed": True, "first": True}, False),
        ("edge1", {"changed": True, "first": True}, True),
    ],
    ids=["as it was", "only its engine is new", "new", "new, and takes no release"],
)
def test_the_edge_is_waited_for_unless_a_release_is_staged_on_its_new_host(
    host: str, installed: dict[str, bool] | None, waits: bool
) -> None:
    plays = yaml.safe_load((KIT / "playbooks/site.yml").read_text())
    [edge] = [play for play in plays if play.get("ansible.builtin.import_playbook") == "edge.yml"]
    variables: dict[str, Any] = {"inventory_hostname": host, "groups": {"app": ["app1"], "edge": ["edge1"]}}
    if installed:
        variables["slipway_installed"] = installed
    templar = Templar(loader=DataLoader(), variables=variables)
    assert templar.template(trust_as_template(edge["vars"]["edge_wait"])) is waits
