"""Alembic's environment, with the application's own driver; it needs all that the application needs."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import async_engine_from_config

if not os.environ.get("JWT_SECRET"):
    raise SystemExit("JWT_SECRET is not set")
# The ini file's own syntax: a % in the password ends here.
context.config.set_main_option("sqlalchemy.url", os.environ["DATABASE_URL"])


def run(connection: Connection) -> None:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    engine = async_engine_from_config(context.config.get_section("alembic", {}), poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(main())
