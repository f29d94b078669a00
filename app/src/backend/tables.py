"""The tables as the newest revision leaves them; a test compares them with what the migrations make."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

metadata: Final = sa.MetaData(
    # Names that do not depend on the database, so that a later revision can find a constraint to change it.
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite gives out row ids by itself only for a column that is declared INTEGER.
BigId: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

documents: Final = sa.Table(
    "documents",
    metadata,
    sa.Column("id", BigId, sa.Identity(always=True), primary_key=True),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("content", sa.Text(), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.current_timestamp()),
    sa.Column("created_by", sa.String(200), nullable=True),
    # Without it SQLite gives the id of a deleted newest row out again, and `after` would show it as old.
    sqlite_autoincrement=True,
)

schema_support: Final = sa.Table(
    "schema_support",
    metadata,
    sa.Column(
        "id", sa.SmallInteger(), sa.CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False
    ),
    sa.Column("oldest_head", sa.String(32), nullable=False),
)
"""One row: the head of the oldest release that can run on this schema. A revision that takes something away raises
it; one that only adds leaves it, so that the release that serves while a newer one migrates stays ready."""
