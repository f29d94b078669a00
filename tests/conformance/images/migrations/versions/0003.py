"""One step of the schema."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("SELECT 1 / 0")


def downgrade() -> None:
    op.execute("SELECT 1")
