"""Data shaping for the role database: from `app_database` to what its host is asked for, and to how it is reached."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from ansible.errors import AnsibleFilterError

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.filter.slipway import on_plain_data
from slipway.database import declared
from slipway.database.declared import Declared

OURS = ("app", "builder", "edge", "registry")
"""The groups, beside `database`, on whose hosts the kit has something to do."""


def slipway_is_given(groups: Mapping[str, Sequence[str]], host: str, data: Mapping[str, Any]) -> bool:
    """Whether a host is in the inventory for a database alone that somebody else looks after."""
    ours = any(host in groups.get(name, []) for name in OURS)
    return not ours and host in groups.get("database", []) and data.get("mode") != "bundled"


def slipway_database_problems(
    data: object, environment: str, groups: Mapping[str, Sequence[str]], addresses: Mapping[str, str]
) -> list[str]:
    """All that is wrong with `app_database`; see slipway.database.declared."""
    return declared.problems(
        data,
        environment=environment,
        hosts=groups.get("database", []),
        apps=groups.get("app", []),
        addresses=addresses,
    )


def slipway_database(data: object, environment: str) -> dict[str, Any]:
    """`app_database` with all that it leaves to the kit."""
    found = _decoded(data)
    return {
        **msgspec.to_builtins(found),
        "name": declared.name_of(found, environment),
        "user": declared.user_of(found, environment),
        "owner": declared.owner_of(found, environment),
        "initdb": declared.initdb_of(found.version),
    }


def slipway_database_connection(
    data: object, environment: str, address: str, passwords: Mapping[str, str], ca_path: str
) -> dict[str, Any]:
    """How an application reaches its database; nothing where that is embedded. It holds secrets."""
    found = _decoded(data)
    if found.mode == "embedded":
        return {}
    reached = declared.connection(
        found,
        environment=environment,
        address=address,
        password=passwords["user"],
        owner_password=passwords["owner"],
        ca_path=ca_path,
    )
    told: dict[str, Any] = msgspec.to_builtins(reached)
    return told


def slipway_database_secrets(data: object, environment: str) -> dict[str, dict[str, str]]:
    """The secrets that the environment needs for it."""
    try:
        return declared.secrets(declared.decode(data), environment)
    except msgspec.ValidationError:
        # What is wrong with it is told by the check of the contract.
        return {}


def _decoded(data: object) -> Declared:
    try:
        return declared.decode(data)
    except msgspec.ValidationError as error:
        raise AnsibleFilterError(f"app_database is wrong: {error}. Compare it with docs/database.md.") from error


class FilterModule:
    """Makes the filters known to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Names the filters of this file."""
        filters = (
            slipway_database,
            slipway_database_connection,
            slipway_database_problems,
            slipway_database_secrets,
            slipway_is_given,
        )
        return {function.__name__: on_plain_data(function) for function in filters}
