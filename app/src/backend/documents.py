"""Documents: making, reading and listing them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.engine import RowMapping

from backend.database import Database
from backend.tables import documents

MAX_ID: Final = 2**63 - 1
MAX_PAGE: Final = 100
_LISTED: Final = (documents.c.id, documents.c.title, documents.c.created_at, documents.c.created_by)
_COLUMNS: Final = (*_LISTED, documents.c.content)

# PostgreSQL cannot store U+0000 in text.
_NO_NUL: Final = r"^[^\x00]*$"


class NewDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client sends."""

    title: Annotated[str, Meta(min_length=1, max_length=200, pattern=_NO_NUL)]
    content: Annotated[str, Meta(pattern=_NO_NUL)] = ""


class Document(msgspec.Struct, frozen=True):
    """What a client gets; `created_by` is None for documents of releases that did not record it."""

    id: int
    title: str
    content: str
    created_at: datetime
    created_by: str | None


class Listed(msgspec.Struct, frozen=True):
    """A document in a list: without its content, because a page of contents may have more bytes than a process may."""

    id: int
    title: str
    created_at: datetime
    created_by: str | None


async def create(database: Database, new: NewDocument, *, author: str) -> Document:
    """Store a document and return it with its id."""
    values: dict[str, Any] = {
        "title": new.title,
        "content": new.content,
        "created_at": datetime.now(UTC),
        "created_by": author,
    }
    async with database.write() as connection:
        row = (await connection.execute(sa.insert(documents).values(values).returning(*_COLUMNS))).mappings().one()
    return Document(**_in_utc(row))


async def read(database: Database, document_id: int) -> Document | None:
    """The document, or None."""
    async with database.connect() as connection:
        found = await connection.execute(sa.select(*_COLUMNS).where(documents.c.id == document_id))
        row = found.mappings().one_or_none()
    return None if row is None else Document(**_in_utc(row))


async def page(database: Database, *, after: int, limit: int) -> tuple[list[Listed], int | None]:
    """At most `limit` documents with ids above `after`, oldest first, and the `after` of the next page if any."""
    query = sa.select(*_LISTED).where(documents.c.id > after).order_by(documents.c.id).limit(limit + 1)
    async with database.connect() as connection:
        rows = (await connection.execute(query)).mappings().all()
    found = [Listed(**_in_utc(row)) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None


async def anonymise(database: Database) -> int:
    """Put other titles, contents and names in the place of those that documents have; how many there are."""
    async with database.write() as connection:
        # The schema may be of an older release, whose documents have no author.
        there = await connection.run_sync(
            lambda sync: {one["name"] for one in sa.inspect(sync).get_columns(documents.name)}
        )
        values: dict[str, Any] = {
            "title": sa.literal("Document ").concat(sa.cast(documents.c.id, sa.String)),
            "content": "Its content was taken out.",
            "created_by": sa.case((documents.c.created_by.is_not(None), "somebody"), else_=None),
        }
        changed = sa.update(documents).values({name: value for name, value in values.items() if name in there})
        return (await connection.execute(changed)).rowcount


def _in_utc(row: RowMapping) -> dict[str, Any]:
    created = row["created_at"]
    # SQLite keeps no time zone; everything was written in UTC.
    return {**row, "created_at": created if created.tzinfo else created.replace(tzinfo=UTC)}
