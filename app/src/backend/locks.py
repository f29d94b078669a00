"""What keeps two changes of one schema apart, migrations and restores: a number in PostgreSQL, a file with SQLite."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ADVISORY_LOCK: Final = 0x5E4D1047
"""The number that is locked in PostgreSQL: any, but always the same."""


def lock_path(database: Path) -> Path:
    """The file that is locked, and never removed, beside an SQLite database."""
    return database.with_name(f"{database.name}.migrate.lock")
