from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from backend.database import Database
from backend.errors import ConfigError, DatabaseUnavailableError
from backend_support import PASSWORD, Cluster, free_port


async def ping(url: str) -> None:
    database = Database(url)
    try:
        await database.ping()
    finally:
        await database.close()


def complaint(url: str) -> str:
    with pytest.raises((ConfigError, DatabaseUnavailableError)) as caught:
        asyncio.run(ping(url))
    return str(caught.value)


def test_both_kinds_answer(database_url: str) -> None:
    asyncio.run(ping(database_url))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_the_usual_ways_to_write_postgresql_are_understood(cluster: Cluster, scheme: str) -> None:
    asyncio.run(ping(cluster.url("postgres").replace("postgresql", scheme, 1) + "?sslmode=prefer&connection_limit=2"))


def test_a_database_that_does_not_listen_is_told_without_the_password() -> None:
    port = free_port()

    message = complaint(f"postgresql://backend:hidden@127.0.0.1:{port}/x")

    assert f"The database postgresql://backend:***@127.0.0.1:{port}/x cannot be reached:" in message
    assert "refused" in message or "Connect call failed" in message
    assert "hidden" not in message


def test_a_host_that_does_not_exist_is_told() -> None:
    assert "cannot be reached" in complaint("postgresql://backend:hidden@database.invalid/x")


def test_a_wrong_password_is_told_as_such_and_not_shown(cluster: Cluster) -> None:
    message = complaint(cluster.url("postgres", password="wrong-hidden"))

    assert 'password authentication failed for user "backend"' in message
    assert "wrong-hidden" not in message
    assert PASSWORD not in message


def test_a_database_that_does_not_exist_is_told(cluster: Cluster) -> None:
    assert 'database "nowhere" does not exist' in complaint(cluster.url("nowhere"))


def test_an_sqlite_file_in_a_directory_that_does_not_exist_is_told(tmp_path: Path) -> None:
    message = complaint(f"sqlite:///{tmp_path}/missing/x.db")

    assert "unable to open database file" in message
    assert "in a directory that this process can write to" in message


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("something else" * 100)

    assert "file is not a database" in complaint(f"sqlite:///{tmp_path}/x.db")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://u:p@h:port/d", "cannot be read as a URL"),
        ("postgresql:///d", "names no host"),
        ("sqlite:///:memory:", "names no file"),
        ("postgresql://u:p@h/d?sslmode=maybe", "sslmode in database.url is not known"),
        ("postgresql://u:p@h/d?connection_limit=none", "connection_limit in database.url is not a positive number"),
        ("postgresql://u:p@h/d?schema=s", "options that are not known: schema"),
        ("postgresql://u:p@h/d?sslmode=require&sslrootcert=/nowhere", "an sslmode that looks at no certificate"),
        ("postgresql://u:p@h/d?sslrootcert=/nowhere", "an sslmode that looks at no certificate"),
        (
            "postgresql://u:p@h/d?sslmode=verify-full&sslrootcert=/nowhere",
            "The certificates in /nowhere cannot be read",
        ),
    ],
)
def test_a_url_that_could_never_work_is_refused_before_connecting(url: str, problem: str) -> None:
    assert problem in complaint(url)


def test_verification_of_certificates_is_real(cluster: Cluster) -> None:
    # The cluster speaks no TLS, so asking for it has to fail instead of going on in the clear.
    assert "cannot be reached" in complaint(cluster.url("postgres") + "?sslmode=verify-full")


def test_sqlite_runs_with_write_ahead_log_foreign_keys_and_busy_timeout(tmp_path: Path) -> None:
    async def run() -> list[object]:
        database = Database(f"sqlite:///{tmp_path}/x.db")
        async with database.connect() as connection:
            found = [
                (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
                for name in ("journal_mode", "foreign_keys", "busy_timeout")
            ]
        await database.close()
        return found

    assert asyncio.run(run()) == ["wal", 1, 5000]


def test_a_transaction_that_fails_leaves_nothing_behind_not_even_a_table(database_url: str) -> None:
    async def run() -> bool:
        database = Database(database_url)

        async def half() -> None:
            async with database.write() as connection:
                await connection.execute(sa.text("CREATE TABLE half (id integer)"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await half()
        async with database.connect() as connection:
            there = await connection.run_sync(lambda sync: sa.inspect(sync).has_table("half"))
        await database.close()
        return there

    assert asyncio.run(run()) is False


def test_writers_that_read_first_wait_for_each_other_instead_of_failing(database_url: str) -> None:
    async def run() -> int:
        database = Database(database_url)
        async with database.write() as connection:
            await connection.execute(sa.text("CREATE TABLE counter (n integer)"))
            await connection.execute(sa.text("INSERT INTO counter VALUES (0)"))

        async def increment() -> None:
            async with database.write() as connection:
                lock = "SELECT n FROM counter" if database.is_sqlite else "SELECT n FROM counter FOR UPDATE"
                number = (await connection.execute(sa.text(lock))).scalar_one()
                await asyncio.sleep(0.005)
                await connection.execute(sa.text("UPDATE counter SET n = :n"), {"n": number + 1})

        await asyncio.gather(*(increment() for _ in range(20)))
        async with database.connect() as connection:
            total: int = (await connection.execute(sa.text("SELECT n FROM counter"))).scalar_one()
        await database.close()
        return total

    assert asyncio.run(run()) == 20


def test_postgresql_ends_a_statement_that_runs_too_long(cluster: Cluster) -> None:
    async def run() -> None:
        database = Database(cluster.url("postgres"), statement_timeout=0.2)
        try:
            async with database.connect() as connection:
                await connection.execute(sa.text("SELECT pg_sleep(20)"))
        finally:
            await database.close()

    started = time.monotonic()
    with pytest.raises(DatabaseUnavailableError, match="statement timeout"):
        asyncio.run(run())
    assert time.monotonic() - started < 5


def test_a_table_that_stays_locked_is_told_as_a_database_that_does_not_answer(cluster: Cluster) -> None:
    url = cluster.new_database()

    async def run() -> None:
        holder, waiter = Database(url), Database(url, lock_timeout=0.2)
        try:
            async with holder.write() as connection:
                await connection.execute(sa.text("CREATE TABLE busy (n integer)"))
            async with holder.write() as connection:
                await connection.execute(sa.text("LOCK TABLE busy"))
                async with waiter.connect() as other:
                    await other.execute(sa.text("SELECT n FROM busy"))
        finally:
            await holder.close()
            await waiter.close()

    with pytest.raises(DatabaseUnavailableError, match=r"not do what it was asked: canceling .* lock timeout"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("SELECT pg_terminate_backend(pg_backend_pid())", "terminating connection"),
        ("CREATE TABLE refused (n integer)", "read-only transaction"),
    ],
)
def test_what_an_operator_does_to_the_database_is_told_as_such(cluster: Cluster, statement: str, told: str) -> None:
    url = cluster.new_database()

    async def run() -> None:
        database = Database(url)
        try:
            async with database.connect() as connection:
                await connection.execute(sa.text("SET TRANSACTION READ ONLY"))
                await connection.execute(sa.text(statement))
        finally:
            await database.close()

    with pytest.raises(DatabaseUnavailableError, match=told):
        asyncio.run(run())


def test_a_mistake_of_ours_is_not_told_as_an_outage(cluster: Cluster) -> None:
    async def run() -> None:
        database = Database(cluster.url("postgres"))
        try:
            async with database.connect() as connection:
                await connection.execute(sa.text("SELECT nothing FROM pg_class"))
        finally:
            await database.close()

    with pytest.raises(sa.exc.DBAPIError, match="nothing"):
        asyncio.run(run())
