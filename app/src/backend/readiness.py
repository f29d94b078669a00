"""Whether this release may take traffic: not draining, database answers, schema one that it can run on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from backend.database import Database
from backend.errors import DatabaseUnavailableError
from backend.tables import schema_support

TIMEOUT: Final = 3.0
"""Seconds that the database gets to answer a readiness check."""

_alembic_version: Final = sa.table("alembic_version", sa.column("version_num", sa.String))


@dataclass
class Lifecycle:
    """What the server tells the application about itself."""

    draining: bool = False


@dataclass(frozen=True)
class Schema:
    """Where the schema is: `current` revision (None when empty) and the oldest head that can run on it."""

    current: str | None
    oldest_head: str | None = None


async def read_schema(database: Database) -> Schema:
    """Ask the database; raises DatabaseUnavailableError."""
    if not database.exists():
        return Schema(current=None)
    async with database.connect() as connection:
        return await connection.run_sync(schema_on)


def schema_on(connection: Connection) -> Schema:
    """The same on a connection that is open already."""
    inspector = sa.inspect(connection)
    if not inspector.has_table("alembic_version"):
        return Schema(current=None)
    current = connection.execute(sa.select(_alembic_version.c.version_num)).scalar_one_or_none()
    if current is None:
        return Schema(current=None)
    return Schema(current, connection.execute(sa.select(schema_support.c.oldest_head)).scalar_one_or_none())


def schema_problem(schema: Schema, head: str) -> str | None:
    """Why a release whose newest revision is `head` cannot run on `schema`; None when it can.

    A schema may be ahead: a newer release migrates while this one still serves, and a rollback leaves it there.
    """
    if schema.current is None:
        return f"the schema is empty and this release needs revision {head}"
    if schema.current < head:
        return f"the schema is at revision {schema.current} and this release needs {head}"
    if schema.current > head and (schema.oldest_head is None or schema.oldest_head > head):
        return f"the schema is at revision {schema.current}, too new for this release of {head}"
    return None


async def look(database: Database) -> Schema | None:
    """Where the schema is; None when the database does not answer in time."""
    try:
        async with asyncio.timeout(TIMEOUT):
            return await read_schema(database)
    except (DatabaseUnavailableError, TimeoutError):
        return None


def problems(schema: Schema | None, lifecycle: Lifecycle, head: str) -> dict[str, str]:
    """What keeps this process from being ready, by check (`draining`, `database`, `schema`); empty when ready.

    `schema` is what `look` found; while draining it does not matter.
    """
    if lifecycle.draining:
        return {"draining": "this process is about to stop"}
    if schema is None:
        return {"database": "the database does not answer"}
    problem = schema_problem(schema, head)
    return {} if problem is None else {"schema": problem}
