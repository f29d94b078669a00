"""Connections to SQLite and PostgreSQL: what they are told when they open, and how their failures read.

SQLite runs with write-ahead logging, enforced foreign keys and a busy timeout, and with the driver's legacy
transactions off: every transaction starts with a BEGIN of ours, IMMEDIATE for writes, so that a writer waits for the
lock instead of failing when it upgrades, and DDL is rolled back like anything else.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from backend.errors import ConfigError, DatabaseUnavailableError

CONNECT_TIMEOUT: Final = 5.0
"""Seconds that opening a connection may take."""
LOCK_TIMEOUT: Final = 5.0
"""Seconds that a statement waits for a lock; also SQLite's busy timeout."""
STATEMENT_TIMEOUT: Final = 10.0
"""Seconds that PostgreSQL lets one statement run."""
POOL_SIZE: Final = 10

_IMMEDIATE: Final = "backend_begin_immediate"
_NOT_OURS: Final = ("08", "25006", "25P03", "42P01", "53", "55", "57")
"""What SQLSTATEs start with when the database's state is to blame and not the statement: connection lost, read-only,
idle transaction ended, not migrated, no resources left, object locked, operator intervention (a timeout is one)."""
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_VERIFYING: Final = ("verify-ca", "verify-full")


class Database:
    """One engine for one `database.url`; end it with `await database.close()`.

    `migrating` turns SQLite's foreign keys off (altering a table there copies it and drops the old one), makes every
    transaction a writing one and keeps no connection open. Timeouts are seconds. Raises ConfigError for a URL that
    cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        migrating: bool = False,
        statement_timeout: float = STATEMENT_TIMEOUT,
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> None:
        parsed = _parse(url)
        backend = parsed.get_backend_name()
        self.is_sqlite = backend == "sqlite"
        self.where = parsed.set(drivername=backend, query={}).render_as_string(hide_password=True)
        """The URL as it may be shown: without password and options."""
        self.path = Path(parsed.database or "") if self.is_sqlite else None
        self.engine: AsyncEngine = (
            _sqlite_engine(parsed, migrating=migrating, lock_timeout=lock_timeout)
            if self.is_sqlite
            else _postgres_engine(
                parsed, migrating=migrating, statement_timeout=statement_timeout, lock_timeout=lock_timeout
            )
        )

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """A connection; what is not committed is rolled back. Raises DatabaseUnavailableError when there is none."""
        try:
            connection = await self.engine.connect()
        except (DBAPIError, PoolTimeoutError, OSError) as error:
            if self.is_sqlite:
                # The driver's thread tells this loop that it has ended, and nothing else waits for that: were the loop
                # closed first, a traceback would follow the sentence that explains the failure.
                await asyncio.sleep(0.05)
            raise self._unavailable(error) from None
        try:
            yield connection
        except DBAPIError as error:
            if not _is_outage(error):
                raise
            raise self._unavailable(error, connected=True) from None
        finally:
            await connection.close()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits when the block ends well."""
        async with self.connect() as connection:
            writing = await connection.execution_options(**{_IMMEDIATE: True})
            async with writing.begin():
                yield writing

    async def ping(self) -> None:
        """Raises DatabaseUnavailableError unless the database answers a statement."""
        async with self.connect() as connection:
            await connection.execute(sa.select(1))

    def exists(self) -> bool:
        """False for an SQLite file that no one has made yet; connecting would make it."""
        return self.path is None or self.path.exists()

    def _unavailable(self, error: BaseException, *, connected: bool = False) -> DatabaseUnavailableError:
        if self.is_sqlite:
            return DatabaseUnavailableError(
                f"The database {self.where} cannot be used: {reason(error)}.",
                "Check that database.url names a file in a directory that this process can write to.",
            )
        if connected:
            return DatabaseUnavailableError(
                f"The database {self.where} did not do what it was asked: {reason(error)}.",
                "Try again; if that does not help, look at the database's own log.",
            )
        return DatabaseUnavailableError(
            f"The database {self.where} cannot be reached: {reason(error)}.",
            "Check database.url, that the database runs, and that it accepts connections from here.",
        )


def _is_outage(error: DBAPIError) -> bool:
    # The driver for PostgreSQL has no class of its own for most of these, and they come as plain DBAPIError.
    if isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated:
        return True
    return str(getattr(error.orig, "sqlstate", None)).startswith(_NOT_OURS)


def reason(error: BaseException) -> str:
    """What a driver says, in one line: without its class names, the statement and its parameters."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    text = re.sub(r"^<class '[^']+'>: ", "", str(error)).strip().split("\n", 1)[0].rstrip(".")
    if isinstance(error, TimeoutError) and not text:
        return f"no answer within {CONNECT_TIMEOUT:g} seconds"
    return text or type(error).__name__


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The message of the library quotes the URL, and with it the password.
        raise ConfigError(
            "database.url cannot be read as a URL.",
            "Write postgresql://user:password@host:port/name with special characters of the password %-encoded.",
        ) from None
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigError("database.url names no file.", "Write sqlite:////absolute/path/to/file.db.")
        return parsed.set(drivername="sqlite+aiosqlite")
    if not parsed.host or not parsed.database:
        raise ConfigError(
            "database.url names no host or no database.", "Write postgresql://user:password@host:port/name."
        )
    return parsed.set(drivername="postgresql+asyncpg")


def _sqlite_engine(url: URL, *, migrating: bool, lock_timeout: float) -> AsyncEngine:
    engine = create_async_engine(url, hide_parameters=True, poolclass=NullPool if migrating else None)
    tell_sqlite(engine.sync_engine, migrating=migrating, lock_timeout=lock_timeout)
    return engine


def tell_sqlite(engine: sa.Engine, *, migrating: bool, lock_timeout: float) -> None:
    """Have an engine for SQLite open its connections, and begin its transactions, the way this module promises."""

    @event.listens_for(engine, "connect")
    def tell(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transaction by itself any more; `begin` below does
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(lock_timeout * 1000)}")  # first: the next one may wait for a lock
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA foreign_keys = {'OFF' if migrating else 'ON'}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get(_IMMEDIATE, migrating)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _postgres_engine(url: URL, *, migrating: bool, statement_timeout: float, lock_timeout: float) -> AsyncEngine:
    options = dict(url.query)
    connect_args: dict[str, Any] = {
        "timeout": CONNECT_TIMEOUT,
        "server_settings": {
            "application_name": "backend",
            "statement_timeout": str(int(statement_timeout * 1000)),
            "lock_timeout": str(int(lock_timeout * 1000)),
            "idle_in_transaction_session_timeout": str(int(statement_timeout * 1000)),
        },
    }
    mode, root_certificate = options.pop("sslmode", None), options.pop("sslrootcert", None)
    if root_certificate is not None and mode not in _VERIFYING:
        raise ConfigError(
            "database.url gives sslrootcert, and an sslmode that looks at no certificate.",
            f"Set sslmode to {' or '.join(_VERIFYING)}, or leave sslrootcert out.",
        )
    if mode is not None:
        connect_args["ssl"] = _ssl(str(mode), root_certificate if root_certificate is None else str(root_certificate))
    pool_size = str(options.pop("connection_limit", POOL_SIZE))
    if not pool_size.isdecimal() or int(pool_size) == 0:
        raise ConfigError("connection_limit in database.url is not a positive number.", "Correct it or leave it out.")
    if options:
        raise ConfigError(
            f"database.url has options that are not known: {', '.join(sorted(options))}.",
            "It takes sslmode, sslrootcert and connection_limit.",
        )
    pool: dict[str, Any] = (
        # A session lock has to end with its connection, so migrations keep none open.
        {"poolclass": NullPool}
        if migrating
        else {"pool_size": int(pool_size), "max_overflow": 0, "pool_timeout": CONNECT_TIMEOUT, "pool_pre_ping": True}
    )
    return create_async_engine(url.set(query={}), connect_args=connect_args, hide_parameters=True, **pool)


def with_database(url: str, name: str) -> str:
    """`url` with another database of the same server."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def libpq_environment(url: str) -> dict[str, str]:
    """The same connection for PostgreSQL's own programs, as the variables that they read.

    An environment can be read by its owner alone, a command line by everybody.
    """
    parsed = _parse(url)
    mode, root_certificate = parsed.query.get("sslmode"), parsed.query.get("sslrootcert")
    if mode in _VERIFYING and root_certificate is None:
        # What Python's default context looks at, too; libpq would look into a home directory.
        root_certificate = ssl.get_default_verify_paths().cafile or "system"
    said = {
        "PGHOST": parsed.host,
        "PGPORT": parsed.port,
        "PGUSER": parsed.username,
        "PGPASSWORD": parsed.password,
        "PGDATABASE": parsed.database,
        "PGSSLMODE": mode,
        "PGSSLROOTCERT": root_certificate,
        "PGGSSENCMODE": "disable",
        "PGCONNECT_TIMEOUT": int(CONNECT_TIMEOUT),
        "PGAPPNAME": "backend",
        "PGCLIENTENCODING": "UTF8",
        "LC_ALL": "C",
    }
    return {name: str(value) for name, value in said.items() if value is not None}


def _ssl(mode: str, root_certificate: str | None) -> str | ssl.SSLContext:
    if mode not in _SSL_MODES:
        raise ConfigError("sslmode in database.url is not known.", f"Use one of {', '.join(_SSL_MODES)}.")
    if mode not in _VERIFYING:
        return mode
    try:
        context = ssl.create_default_context(cafile=root_certificate)
    except OSError as error:
        raise ConfigError(
            f"The certificates in {root_certificate} cannot be read: {error.strerror or error}.",
            "Correct sslrootcert in database.url.",
        ) from None
    context.check_hostname = mode == "verify-full"
    return context
