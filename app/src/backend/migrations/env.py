"""What Alembic runs for `upgrade` and `downgrade`; `backend.migrate` hands it the connection and holds the lock.

Without a connection, Alembic writes what it would run: that is how `backend.migrate` shows PostgreSQL's SQL.
"""

from __future__ import annotations

from alembic import context

from backend.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    dialect_name="postgresql",  # counts where there is no connection to tell
    literal_binds=context.is_offline_mode(),
    target_metadata=metadata,
    render_as_batch=True,
    transaction_per_migration=True,
    on_version_apply=context.config.attributes["on_apply"],
    # Alembic takes SQLite's DDL for not transactional, because of the driver's legacy mode; backend.database turns
    # that mode off, so a failing revision is rolled back whole on both databases.
    transactional_ddl=True,
)

with context.begin_transaction():
    context.run_migrations()
