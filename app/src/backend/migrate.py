"""Moving the schema: up, down, where it is, what is pending and which SQL that is.

One run at a time, each revision whole or not at all. Two runs at once are kept apart by an advisory lock in PostgreSQL
and by a locked file beside the database in SQLite.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.database import Database, reason, tell_sqlite
from backend.errors import DatabaseUnavailableError, MigrationError, UsageError
from backend.locks import ADVISORY_LOCK, lock_path
from backend.migrations import HERE, head
from backend.readiness import read_schema, schema_on, schema_problem

LOCK_WAIT: Final = 60.0
"""Seconds to wait for another migration to end."""
LOCK_TIMEOUT: Final = 5.0
"""Seconds that a revision waits for a table: while it waits, everything behind it waits too."""
STATEMENT_TIMEOUT: Final = 300.0
"""Seconds that one statement of a revision may run."""

_LOOKS: Final = re.compile(r"\s*(PRAGMA|SELECT|BEGIN|COMMIT|ROLLBACK)\b", re.IGNORECASE)
"""Statements of a rehearsal that change nothing, or that are the transaction around what does."""
_ALEMBICS_HEADING: Final = re.compile(r"^-- Running upgrade .*\n\n", re.MULTILINE)


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

    async def sql(self) -> list[str]:
        """The statements that `up` would run, each ended by `;`, after a comment line for each revision.

        PostgreSQL's are what Alembic writes without a connection. On SQLite altering a table means to look at it and
        copy it, so there the revisions run on a copy of the live schema without its data, and what they did is told.
        """
        pending = await self.pending()
        if not pending:
            return []
        if not self.database.is_sqlite:
            return self._written((await self.current()) or "base", pending)
        return self._rehearsed(await _definitions(self.database), pending)

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

    def _written(self, current: str, pending: list[Revision]) -> list[str]:
        lines: list[str] = []
        self._alembic.attributes.update(connection=None, on_apply=lambda **_: None)
        for step in pending:
            self._alembic.output_buffer = io.StringIO()
            try:
                command.upgrade(self._alembic, f"{current}:{step.id}", sql=True)
            except Exception as error:
                raise _untold(step, error) from error
            current = step.id
            written = _ALEMBICS_HEADING.sub("", self._alembic.output_buffer.getvalue(), count=1)
            lines += [_heading(step), written.strip()]
        return lines

    def _rehearsed(self, definitions: list[str], pending: list[Revision]) -> list[str]:
        engine = sa.create_engine("sqlite://", hide_parameters=True)
        tell_sqlite(engine, migrating=True, lock_timeout=LOCK_TIMEOUT)
        lines: list[str] = []
        with engine.connect() as connection:
            for definition in definitions:
                connection.exec_driver_sql(definition)
            connection.commit()
            ran: list[str] = []
            # The driver's own trace, because it has the values in their places.
            cast("sqlite3.Connection", connection.connection.dbapi_connection).set_trace_callback(ran.append)
            for step in pending:
                ran.clear()
                try:
                    self._run(connection, command.upgrade, step.id, [])
                except Exception as error:
                    raise _untold(step, error) from error
                changes = (statement.strip().rstrip(";") for statement in ran if not _LOOKS.match(statement))
                lines += [_heading(step), *(f"{change};" for change in changes)]
        engine.dispose()
        return lines

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
        lock = lock_path(self.database.path)
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


async def _definitions(database: Database) -> list[str]:
    """What makes a schema like the live one in SQLite: its tables, what stands on them, the revision it is at."""
    if not database.exists():
        return []
    query = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
    query += "ORDER BY type <> 'table', rowid"
    async with database.connect() as connection:
        made = list((await connection.exec_driver_sql(query)).scalars())
        current = (await connection.run_sync(schema_on)).current
    return made if current is None else [*made, f"INSERT INTO alembic_version VALUES ('{current}')"]  # noqa: S608 - a revision's id


def _heading(step: Revision) -> str:
    return f"-- {step.id} {step.message}"


def _untold(step: Revision, error: Exception) -> MigrationError:
    return MigrationError(
        f"Revision {step.id} ({step.message}) cannot be told as SQL: {reason(error)}.",
        "It needs data or a connection to decide what it does; write it so that it does not.",
    )


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
    return [Revision(script.revision, script.doc.partition("\n")[0]) for script in scripts]
