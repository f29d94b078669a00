"""Data shaping for the role backup: what its target says, and what the vault has to hold for it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.filter.slipway import on_plain_data
from slipway.archive.target import place_of
from slipway.errors import UsageError
from slipway.vault import PRODUCTION

GIVEN = {
    "sftp": {"backup_ssh_key": "a private key that logs in to the host of backup_target"},
    "s3": {
        "backup_access_key": "from whoever runs the store of backup_target",
        "backup_secret_key": "from whoever runs the store of backup_target",
    },
}
"""Kind of target -> secrets that somebody has to give, with where they come from."""


def slipway_backup_secrets(url: str) -> dict[str, dict[str, str]]:
    """The secrets that the environment needs for its target."""
    if not url:
        return {}
    try:
        kind = place_of(url).kind
    except UsageError:
        # What is wrong with it is told by the check of the inventory.
        return {}
    given = {name: {"kind": "given", "note": f"It is {note}."} for name, note in GIVEN.get(kind, {}).items()}
    note = "Keep a copy in a safe place: without it no backup can be read."
    return {"backup_password": {"kind": "password", "note": note}, **given}


def slipway_backup_problems(url: str, environment: str, database: Mapping[str, Any]) -> list[str]:
    """All that is wrong with what an inventory says of backups."""
    if url:
        try:
            place_of(url)
        except UsageError as error:
            return [str(error)]
    elif environment == PRODUCTION and database.get("backup") != "none":
        return [
            "This is production, and nothing says where its backups go. Set backup_target, and run "
            "playbooks/archive.yml; or write backup: none in app_database."
        ]
    return []


class FilterModule:
    """Makes the filters known to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Names the filters of this file."""
        filters = (slipway_backup_problems, slipway_backup_secrets)
        return {function.__name__: on_plain_data(function) for function in filters}
