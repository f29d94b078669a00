"""`backend serve`: from the configuration to a server that runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final

from backend import config
from backend.app import Backend, create_app
from backend.database import Database
from backend.errors import ConfigError, DatabaseUnavailableError
from backend.metrics import Metrics
from backend.migrations import head
from backend.readiness import Lifecycle, Schema, read_schema, schema_problem
from backend.server import serve
from backend.version import version

DATABASE_WAIT: Final = 5.0
"""Seconds that the database gets to come up: both may have been started at the same moment."""

_logger = logging.getLogger(__name__)


def run(environ: Mapping[str, str]) -> int:
    """Serve until a signal and return the exit code; raises BackendError when it cannot start."""
    loaded = config.load(environ)
    port = _whole_number(environ, "BACKEND_PORT", default=4000, low=1, high=65535)
    drain_seconds = _whole_number(environ, "BACKEND_DRAIN_SECONDS", default=3, low=0, high=3600)
    url = loaded.environment.database.url
    problem = schema_problem(asyncio.run(_first_answer(url)), head())
    if problem is not None:
        _logger.warning("not ready yet: %s; run `backend migrate up`", problem)
    backend = Backend(
        database=Database(url),
        jwt_secrets=loaded.environment.auth.jwt_secrets,
        environment=loaded.environment_name,
        version=version(),
        head=head(),
        lifecycle=Lifecycle(),
        metrics=Metrics(version()),
    )
    host = environ.get("BACKEND_HOST") or "0.0.0.0"  # noqa: S104 - in a container, its network is the bound
    return serve(create_app(backend), host=host, port=port, lifecycle=backend.lifecycle, drain_seconds=drain_seconds)


async def _first_answer(url: str) -> Schema:
    database = Database(url)
    deadline = time.monotonic() + DATABASE_WAIT
    try:
        while True:
            try:
                await database.ping()
                return await read_schema(database)
            except DatabaseUnavailableError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
    finally:
        await database.close()


def _whole_number(environ: Mapping[str, str], key: str, *, default: int, low: int, high: int) -> int:
    text = environ.get(key) or str(default)
    if text.isascii() and text.isdecimal() and low <= int(text) <= high:
        return int(text)
    raise ConfigError(f'{key} is "{text}".', f"Set it to a whole number from {low} to {high}.")
