"""Moving the schema: up, down, where it is, and what is pending. One run at a time, each revision whole or not at all.

Two runs at once are kept apart by an advisory lock in PostgreSQL and by a locked file beside the database in SQLite.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.database import Database, reason
from backend.errors import DatabaseUnavailableError, MigrationError, UsageError
from backend.migrations import HERE, head
from backend.readiness import read_schema, schema_on, schema_problem

LOCK_WAIT: Final = 60.0
"""Seconds to wait for another migration to end."""
LOCK_TIMEOUT: Final = 5.0
"""Seconds that a revision waits for a table: while it waits, everything behind it waits too."""
STATEMENT_TIMEOUT: Final = 300.0
"""Seconds that one statement of a revision may run."""
ADVISORY_LOCK: Final = 0x5E4D1047
"""The number that migrations of this schema lock in PostgreSQL: any, but always the same."""


@dataclass(frozen=True)
class Revision:
    """One step: its id and the first line of its description."""

    id: str
    message: str


class Migrations:
    """The revisions in `versions` (the package's own unless given) and one database to apply them to."""

    def __init__(self, url: str, versions: Path = HERE / "versions", *, lock_wait: float = LOCK_WAIT) -> None:
        self.database = Database(url, migrating=True, statement_timeout=STATEMENT_TIMEOUT, lock_timeout=LOCK_TIMEOUT)
        self.lock_wait = lock_wait
        self._alembic = AlembicConfig()
        for key, value in {"script_location": HERE, "version_locations": versions, "path_separator": "newline"}.items():
            self._alembic.set_main_option(key, str(value).replace("%", "%%"))
        self._scripts = ScriptDirectory.from_config(self._alembic)

    async def current(self) -> str | None:
        """The revision the schema is at; None when it is empty."""
        return (await read_schema(self.database)).current

    async def pending(self) -> list[Revision]:
        """What `up` would apply, in that order.

        Nothing on a schema of a newer release that this one can run on: so a rollback that asks first goes on. Raises
        MigrationError for any other revision that is unknown.
        """
        schema = await read_schema(self.database)
        if schema.current is not None and not self._knows(schema.current) and schema_problem(schema, head()) is None:
            return []
        self._known(schema.current)
        return _revisions(self._upwards(schema.current, "head"))

    async def up(self, target: str = "head") -> list[Revision]:
        """Apply what is pending up to `target`; returns what was applied, or raises MigrationError."""
        return await self._move(self._upwards, command.upgrade, target)

    async def down(self, target: str = "-1") -> list[Revision]:
        """Take back the newest revision, or all above `target` (`base`: all of them); returns what was taken back."""
        return await self._move(self._downwards, command.downgrade, target)

    def _upwards(self, current: str | None, target: str) -> list[Script]:
        return list(self._scripts.iterate_revisions(target, current or "base"))[::-1]

    def _downwards(self, current: str | None, target: str) -> list[Script]:
        return (
            [] if current is None else list(self._scripts.iterate_revisions(current, target, select_for_downgrade=True))
        )

    async def _move(
        self,
        plan: Callable[[str | None, str], list[Script]],
        run: Callable[[AlembicConfig, str], None],
        target: str,
    ) -> list[Revision]:
        async with self._locked() as connection:
            current = (await connection.run_sync(schema_on)).current
            await connection.rollback()  # Alembic would take an open transaction for the caller's own
            self._known(current)
            try:
                steps = _revisions(plan(current, target))
            except (CommandError, RevisionError) as error:
                raise UsageError(
                    f'There is no way from revision {current or "none"} to "{target}": {error}.',
                    "Name a revision of this release, or leave it out.",
                ) from None
            if not steps:
                return []
            applied: list[str] = []
            try:
                await connection.run_sync(self._run, run, target, applied)
            except Exception as error:
                failed = steps[min(len(applied), len(steps) - 1)]
                await connection.rollback()
                now = (await connection.run_sync(schema_on)).current
                raise MigrationError(
                    f"Revision {failed.id} ({failed.message}) failed and was rolled back: {reason(error)}.",
                    f"The schema is at revision {now or 'none'}; correct the cause and run it again.",
                ) from error
            return steps

    def _run(
        self, connection: Connection, run: Callable[[AlembicConfig, str], None], target: str, applied: list[str]
    ) -> None:
        def on_apply(*, step: Any, **_: Any) -> None:
            # Still inside the revision's transaction, so that what is found here is rolled back too.
            if self.database.is_sqlite:
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                if broken is not None:
                    raise ValueError(f"a row of {broken[0]} would point to nothing in {broken[2]}")
            applied.append(step.up_revision_id)

        self._alembic.attributes.update(connection=connection, on_apply=on_apply)
        run(self._alembic, target)

    def _knows(self, revision: str) -> bool:
        return revision in {script.revision for script in self._scripts.walk_revisions()}

    def _known(self, current: str | None) -> None:
        if current is None or self._knows(current):
            return
        raise MigrationError(
            f"The schema is at revision {current}, which this release does not know.",
            "A newer release has migrated it: run `migrate down` with that release's image first, or deploy that one.",
        )

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[AsyncConnection]:
        if self.database.path is None:
            async with self.database.connect() as connection:
                await self._wait_for(lambda: _advisory_lock(connection))
                yield connection  # the lock ends with the connection
            return
        lock = self.database.path.with_name(f"{self.database.path.name}.migrate.lock")
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DatabaseUnavailableError(
                f"The lock {lock} cannot be made: {error.strerror}.",
                "Check that database.url names a file in a directory that this process can write to.",
            ) from None
        try:
            await self._wait_for(lambda: _file_lock(handle))
            async with self.database.connect() as connection:
                yield connection
        finally:
            os.close(handle)

    async def _wait_for(self, lock: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + self.lock_wait
        while not await lock():
            if time.monotonic() > deadline:
                raise MigrationError(
                    f"Another migration of this database still runs after {self.lock_wait:g} seconds.",
                    "Wait for it to end, or end it, and run this again.",
                )
            await asyncio.sleep(0.1)


async def _advisory_lock(connection: AsyncConnection) -> bool:
    held = (await connection.execute(sa.select(sa.func.pg_try_advisory_lock(ADVISORY_LOCK)))).scalar_one()
    await connection.commit()
    return bool(held)


async def _file_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _revisions(scripts: Iterable[Script]) -> list[Revision]:
    return [Revision(script.revision, script.doc) for script in scripts]
