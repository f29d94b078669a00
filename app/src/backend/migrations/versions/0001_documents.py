"""Create documents.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Documents, and the row that says which releases can run on this schema."""
    op.create_table(
        "documents",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(always=True), primary_key=True
        ),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.current_timestamp()),
        sqlite_autoincrement=True,
    )
    support = op.create_table(
        "schema_support",
        sa.Column(
            "id", sa.SmallInteger(), sa.CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False
        ),
        sa.Column("oldest_head", sa.String(32), nullable=False),
    )
    op.bulk_insert(support, [{"id": 1, "oldest_head": "0001"}])


def downgrade() -> None:
    """Back to an empty schema."""
    op.drop_table("schema_support")
    op.drop_table("documents")
