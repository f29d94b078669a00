"""One step of the schema."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS citext")
    op.execute("CREATE TABLE items (id int PRIMARY KEY, name citext)")


def downgrade() -> None:
    op.execute("DROP TABLE items")
