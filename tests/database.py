"""A bundled database as the role declares it, for tests without Ansible's own run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from slipway.database.declared import initdb_of

KIT = Path(__file__).parents[1]
TEMPLATE = KIT / "compose/database/compose.yml.j2"
INSPECTOR = "slipway-test/inspector:1"
PASSWORDS = {
    "superuser": "never-to-be-seen-superuser-0123456789",
    "owner": "never-to-be-seen-owner-'\"\\$%-0123456789",
    "user": "never-to-be-seen-user-@:/?#-0123456789",
    "replication": "never-to-be-seen-replication-0123456789",
}


def defaults() -> dict[str, Any]:
    """Of the role."""
    found: dict[str, Any] = yaml.safe_load((KIT / "roles/database/defaults/main.yml").read_text())
    return found


def variables(name: str, image: str, *, port: int, version: int) -> dict[str, Any]:
    """What the template is laid out with."""
    shaped = {"name": "shop", "port": port, "initdb": initdb_of(version)}
    return {
        **defaults(),
        "slipway_name": name,
        "__database_reference": image,
        "__database_inspector_reference": INSPECTOR,
        "__database_declared": shaped,
    }


def compose(name: str, image: str, *, port: int = 5432, version: int = 17, **change: Any) -> str:
    """The Compose file of its stack."""
    given = {**variables(name, image, port=port, version=version), **change}
    templar = Templar(loader=DataLoader(), variables=given)
    text: str = templar.template(trust_as_template(TEMPLATE.read_text()))
    return text


def request(
    name: str, image: str, *, port: int, version: int = 17, inspector: Mapping[str, Any] | None = None, **change: Any
) -> dict[str, Any]:
    """What the engine of its host is asked for, on the loopback address. `inspector` has variables of the role."""
    return {
        "name": name,
        "compose": compose(name, image, port=port, version=version, **(inspector or {})),
        "image": image,
        "version": version,
        "database": {"name": "shop", "owner": "shop_owner", "user": "shop"},
        "passwords": PASSWORDS,
        "address": "127.0.0.1",
        "port": port,
        "names": ["db1"],
        "clients": ["127.0.0.1"],
        "memory": "256m",
        "connections": 20,
        **change,
    }
