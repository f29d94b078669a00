"""Backups of the live database: making one, checking one, putting one back.

What the two kinds of database share; `backups_sqlite` and `backups_postgres` do it.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Final, Protocol

from backend.errors import BackupError

VERSION_TABLE: Final = "alembic_version"
"""The table that every schema of this backend has once a revision was applied."""
Rows = dict[str, int]
"""Table -> number of its rows, exact, by name."""


class Backups(Protocol):
    """What can be done with the backups of one database. Streams have to have a file descriptor."""

    def create(self, out: BinaryIO) -> None:
        """Write a consistent backup of the live database to `out`."""

    def verify(self, backup: BinaryIO) -> Rows:
        """The rows of `backup`, restored to a database of its own, which is removed again; raises BackupError."""

    def status(self, backup: BinaryIO) -> str:
        """The revision that `backup` is at, or an empty string where it was taken before the first one."""

    def count(self) -> Rows:
        """The live database's tables; nothing where no one has made it yet."""

    def restore(self, backup: BinaryIO) -> None:
        """Put `backup` in the place of the live database, whole or not at all."""


def ours(rows: Rows) -> Rows:
    """`rows` as they are; raises BackupError when these are the tables of something else."""
    if rows and VERSION_TABLE not in rows:
        raise BackupError(
            f"The backup has tables and no {VERSION_TABLE} among them: it is not one of this backend.",
            "Give it one that `backend backup create` made.",
        )
    return rows


def not_a_backup(why: str) -> BackupError:
    """What to raise for a stream that cannot be restored."""
    return BackupError(
        f"What was read is no backup that can be used: {why}.", "Give it one that `backend backup create` made, whole."
    )


def failed(what: str, error: OSError) -> BackupError:
    """What to raise when the disk, and not the backup, is the problem."""
    return BackupError(f"{what}: {os.strerror(error.errno or 0)}.", "Free space on the volume of the database.")
