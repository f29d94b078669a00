"""Backups of a PostgreSQL database, by PostgreSQL's own pg_dump and pg_restore.

A backup is an archive of pg_dump's custom format with everything in the schema that the backend's tables stand in.
Restoring is one transaction of psql, which gets the COMMIT only once pg_restore has read the whole archive; whatever
ends before that leaves the database as it was. pg_restore does not connect by itself, because its script sets what
servers older than itself do not know.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, BinaryIO, Final, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.backups import VERSION_TABLE, Rows, not_a_backup, ours
from backend.database import Database, libpq_environment, reason, with_database
from backend.errors import BackupError
from backend.locks import ADVISORY_LOCK

STATEMENT_TIMEOUT: Final = 600.0
"""Seconds that creating a database, dropping it, or counting what is in it may take."""
LOCK_WAIT: Final = 30
"""Seconds to wait for the tables: what comes later waits behind."""
VERIFY_LOCK: Final = ADVISORY_LOCK + 1
"""The number that one verification at a time locks in PostgreSQL."""
MAX_NAME: Final = 63
"""Bytes that a name may have in PostgreSQL."""

_SCRATCH: Final = "_scratch_"
_RANDOM: Final = 16
_TOO_NEW: Final = b"SET transaction_timeout = 0;\n"
"""Stands in the scripts of pg_restore 17 and newer, and is an error on servers before 17."""
_SETTINGS: Final = 40
"""Lines at the beginning of a script in which it can stand; data comes later."""
_NOT_PERMITTED: Final = "42501"
_T = TypeVar("_T")

_BEFORE_RESTORE: Final = f"""
SET LOCAL lock_timeout = '{LOCK_WAIT}s';
DO $restore$
DECLARE
    drop_what text;
BEGIN
    IF NOT pg_try_advisory_xact_lock({ADVISORY_LOCK}) THEN
        RAISE EXCEPTION 'a migration of this database runs now';
    END IF;
    FOR drop_what IN
        SELECT format('DROP %%s %%s', kind, string_agg(name, ', '))
        FROM (
            SELECT CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                       ELSE 'TABLE' END,
                   CASE relkind WHEN 'v' THEN 1 WHEN 'm' THEN 2 WHEN 'S' THEN 4 ELSE 3 END,
                   oid::regclass::text, 'pg_class'::regclass, oid, relowner, relnamespace
            FROM pg_class WHERE relkind IN ('v', 'm', 'r', 'p', 'f', 'S')
            UNION ALL
            SELECT 'ROUTINE', 5, oid::regprocedure::text, 'pg_proc'::regclass, oid, proowner, pronamespace FROM pg_proc
            UNION ALL
            SELECT 'TYPE', 6, oid::regtype::text, 'pg_type'::regclass, oid, typowner, typnamespace
            FROM pg_type WHERE typtype IN ('e', 'd', 'r')
                OR typtype = 'c' AND typrelid IN (SELECT oid FROM pg_class WHERE relkind = 'c')
        ) AS found (kind, place, name, catalog, oid, owner, namespace)
        WHERE namespace = %(schema)s::regnamespace AND pg_has_role(owner, 'USAGE')
            -- What belongs to an extension stays; what belongs to a table goes with it.
            AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = catalog AND d.objid = found.oid
                AND (d.deptype = 'e' OR kind = 'SEQUENCE' AND d.deptype IN ('a', 'i')))
        GROUP BY kind, place ORDER BY place
    LOOP
        EXECUTE drop_what;
    END LOOP;
END
$restore$;
"""  # noqa: S608 - the numbers are constants, the schema is quoted
_AFTER_RESTORE: Final = f"""
DO $restore$
BEGIN
    IF to_regclass(%(schema)s || '.{VERSION_TABLE}') IS NULL THEN
        RAISE EXCEPTION 'the backup has no table {VERSION_TABLE}';
    END IF;
END
$restore$;
"""


class PostgresBackups:
    """Backups of the database that `url` names."""

    def __init__(self, url: str) -> None:
        self._url = url

    def create(self, out: BinaryIO) -> None:
        """As in Backups. pg_dump reads one snapshot, and only who changes the schema waits for it."""
        schema = asyncio.run(_on(self._url, _schema))
        arguments = ["--format=custom", f"--schema={_name(schema)}", f"--lock-wait-timeout={LOCK_WAIT}s"]
        with _program("pg_dump", *arguments, environ=libpq_environment(self._url), stdout=out) as dumping:
            if dumping.wait() != 0:
                raise BackupError(f"pg_dump made no backup: {dumping.said()}.", "Correct that, and run this again.")

    def verify(self, backup: BinaryIO) -> Rows:
        """As in Backups. The database of its own is on the same server, so the user needs the right CREATEDB."""
        return asyncio.run(_on(self._url, lambda live: self._verify(live, backup)))

    def status(self, backup: BinaryIO) -> str:
        """As in Backups. It is read out of the archive, and no database is made for it."""
        arguments = ["--data-only", f"--table={VERSION_TABLE}", "--file=-"]
        environ = libpq_environment(self._url)
        with _program("pg_restore", *arguments, environ=environ, stdin=backup, stdout=subprocess.PIPE) as reading:
            lines = reading.output.read().decode().splitlines()
            if reading.wait() != 0:
                raise not_a_backup(reading.said())
        # The rows stand between the statement that copies them and a line of two characters.
        copied = [number for number, line in enumerate(lines) if line.startswith("COPY ")]
        row = lines[copied[0] + 1] if copied else "\\."
        return "" if row == "\\." else row

    def count(self) -> Rows:
        """As in Backups."""

        async def count(live: AsyncConnection) -> Rows:
            return await _count(live, await _schema(live))

        return asyncio.run(_on(self._url, count))

    def restore(self, backup: BinaryIO) -> None:
        """As in Backups. A process that serves goes on; its requests wait for as long as this takes."""
        schema = asyncio.run(_on(self._url, _schema))
        said = {"schema": _literal(_name(schema))}
        _load(backup, self._url, schema, before=_BEFORE_RESTORE % said, after=_AFTER_RESTORE % said)

    async def _verify(self, live: AsyncConnection, backup: BinaryIO) -> Rows:
        schema = await _schema(live)
        async with self._scratch(live) as url:
            # Nothing else runs on this loop, so the programs may block it.
            _load(backup, url, schema, before=f"CREATE SCHEMA IF NOT EXISTS {_name(schema)};\n", after="")
            return ours(await _on(url, lambda scratch: _count(scratch, schema)))

    @asynccontextmanager
    async def _scratch(self, live: AsyncConnection) -> AsyncIterator[str]:
        """The URL of a database of its own on the same server, dropped at the end; so is what a killed process left."""
        if not (await live.execute(sa.select(sa.func.pg_try_advisory_lock(VERIFY_LOCK)))).scalar_one():
            raise BackupError("Another backup of this database is verified now.", "Wait, and run this again.")
        name = (await live.execute(sa.text("SELECT current_database()"))).scalar_one()
        prefix = name.encode()[: MAX_NAME - len(_SCRATCH) - _RANDOM].decode(errors="ignore") + _SCRATCH
        own = sa.text(
            "SELECT datname FROM pg_database WHERE datdba = (SELECT oid FROM pg_roles WHERE rolname = current_user)"
        )
        for left in (await live.execute(own)).scalars().all():
            if re.fullmatch(f"{re.escape(prefix)}[0-9a-f]{{{_RANDOM}}}", left):
                await _drop(live, left)
        scratch = prefix + secrets.token_hex(_RANDOM // 2)
        try:
            await _create(live, scratch)
            yield with_database(self._url, scratch)
        finally:
            await _on(self._url, lambda fresh: _drop(fresh, scratch))


async def _on(url: str, act: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
    """What `act` finds on a connection of its own, on which each statement is a transaction."""
    database = Database(url, statement_timeout=STATEMENT_TIMEOUT)
    try:
        async with database.connect() as connection:
            return await act(await connection.execution_options(isolation_level="AUTOCOMMIT"))
    except DBAPIError as error:
        raise BackupError(
            f"The database {database.where} refused what a backup needs: {reason(error)}.",
            "Correct that, and run this again.",
        ) from None
    finally:
        await database.close()


async def _schema(connection: AsyncConnection) -> str:
    """The schema that the backend's tables stand in: where its user makes a table without saying where."""
    found: str | None = (await connection.execute(sa.text("SELECT current_schema()"))).scalar_one()
    if found is None:
        raise BackupError(
            "No schema in the search path of the database's user exists.", "Create one, or correct the search path."
        )
    return found


async def _count(connection: AsyncConnection, schema: str) -> Rows:
    names = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names(schema=schema))
    if not names:
        return {}
    # One statement, so that all tables are counted at one moment.
    counts = (sa.select(sa.literal(name), sa.func.count()).select_from(sa.table(name, schema=schema)) for name in names)
    found = (await connection.execute(sa.union_all(*counts))).tuples().all()
    return dict(sorted((str(name), int(rows)) for name, rows in found))


async def _create(live: AsyncConnection, scratch: str) -> None:
    like = "SELECT pg_encoding_to_char(encoding), datcollate, datctype, current_user FROM pg_database"
    like += " WHERE datname = current_database()"
    encoding, collation, kind, user = (await live.execute(sa.text(like))).one()
    try:
        await live.exec_driver_sql(
            f"CREATE DATABASE {_name(scratch)} TEMPLATE template0 ENCODING {_literal(encoding)} "
            f"LC_COLLATE {_literal(collation)} LC_CTYPE {_literal(kind)}"
        )
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_PERMITTED:
            raise
        raise BackupError(
            f"The database's user {user} may not create the database that a backup is verified in.",
            f"Let an administrator run `ALTER ROLE {_name(user)} CREATEDB`, and run this again.",
        ) from None


async def _drop(connection: AsyncConnection, scratch: str) -> None:
    await connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {_name(scratch)} WITH (FORCE)")


def _load(backup: BinaryIO, url: str, schema: str, *, before: str, after: str) -> None:
    """Run `before`, what `backup` holds of `schema`, and `after` in one transaction of the database `url`."""
    environ = libpq_environment(url)
    # Grants and owners name roles that another server, or a user without their rights, does not have.
    arguments = ["--no-owner", "--no-privileges", f"--schema={schema}", "--file=-"]
    with _program("pg_restore", *arguments, environ=environ, stdin=backup, stdout=subprocess.PIPE) as reading:
        settings = list(itertools.islice(reading.output, _SETTINGS))
        if not settings:
            reading.wait()
            raise not_a_backup(reading.said())
        options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse"]
        with _program("psql", *options, environ=environ, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as writing:
            try:
                writing.input.write(f"BEGIN;\n{before}".encode())
                writing.input.writelines(line for line in settings if line != _TOO_NEW)
                shutil.copyfileobj(reading.output, writing.input)
                if reading.wait() != 0:
                    raise not_a_backup(reading.said())
                writing.input.write(f"{after}COMMIT;\n".encode())
                writing.input.close()
            except BrokenPipeError:
                pass  # it has ended, and says below why
            if writing.wait() != 0:
                raise BackupError(
                    f"The backup was not restored: {writing.said()}.",
                    "The database is as it was; correct that, and run this again.",
                )


@dataclass(frozen=True)
class _Program:
    """A program that runs, and the file that it complains into."""

    process: subprocess.Popen[bytes]
    complaints: IO[bytes]

    @property
    def input(self) -> IO[bytes]:
        return cast("IO[bytes]", self.process.stdin)

    @property
    def output(self) -> IO[bytes]:
        return cast("IO[bytes]", self.process.stdout)

    def wait(self) -> int:
        return self.process.wait()

    def said(self) -> str:
        """Its first complaint, without what comes before: the line's number, the program's name. No data follows."""
        self.complaints.seek(0)
        text = self.complaints.read().decode(errors="replace")
        found = re.search(r"(?:error|ERROR|FATAL): +(?!.*failed: FATAL)(.*)", text)
        return (found[1] if found else text.partition("\n")[0]).strip().rstrip(".") or "it says nothing"


@contextmanager
def _program(
    name: str,
    *arguments: str,
    environ: Mapping[str, str],
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int,
) -> Iterator[_Program]:
    """One of PostgreSQL's programs; it is ended where the block ends before it."""
    with TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                [name, *arguments], env={**os.environ, **environ}, stdin=stdin, stdout=stdout, stderr=complaints
            )
        except FileNotFoundError:
            raise BackupError(
                f"There is no program {name} here.", "Install PostgreSQL's client programs, or run this in the image."
            ) from None
        try:
            yield _Program(process, complaints)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()


def _name(text: str) -> str:
    """Quoted as a name, for SQL and for pg_dump's patterns."""
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def _literal(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"
