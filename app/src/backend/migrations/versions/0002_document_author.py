"""Record who created a document.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """A nullable column: a release of 0001 goes on writing without it, so schema_support stays as it is."""
    with op.batch_alter_table("documents") as batch:
        batch.add_column(sa.Column("created_by", sa.String(200), nullable=True))


def downgrade() -> None:
    """Forget who created a document."""
    # SQLite copies the table here, and what it does not reflect has to be said again.
    with op.batch_alter_table("documents", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_column("created_by")
