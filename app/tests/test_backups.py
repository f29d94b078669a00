"""Backups of both kinds of database: consistent under load, checked before they are trusted, put back whole or not."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
import sqlalchemy as sa
from backend import backups_sqlite, tables
from backend.backups_sqlite import SqliteBackups
from backend.database import Database, libpq_environment
from backend.errors import BackupError
from backend.migrate import Migrations
from backend_support import INHERITED, PASSWORD, SECRET, Cluster, Process, run_migrations, write_config

Start = Callable[..., Process]


@dataclass(frozen=True)
class Begun:
    """A `backend` that runs, and its pipes."""

    process: subprocess.Popen[bytes]
    input: IO[bytes]
    output: IO[bytes]
    complaints: IO[bytes]


class Operator:
    """Who runs `backend` against one database."""

    def __init__(self, root: Path, url: str) -> None:
        self.url = url
        self.environ = {**INHERITED, **write_config(root, url)}

    def run(self, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        program = [sys.executable, "-m", "backend", *arguments]
        return subprocess.run(program, env=self.environ, input=given, capture_output=True, timeout=120, check=False)

    @contextmanager
    def begin(self, *arguments: str) -> Iterator[Begun]:
        program = [sys.executable, "-m", "backend", *arguments]
        pipe = subprocess.PIPE
        with subprocess.Popen(program, env=self.environ, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                yield Begun(process, process.stdin, process.stdout, process.stderr)
            finally:
                process.kill()

    def create(self) -> bytes:
        done = self.run("backup", "create")
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
        return done.stdout

    def verify(self, backup: bytes) -> dict[str, int]:
        done = self.run("backup", "verify", given=backup)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
        return dict(json.loads(done.stdout))

    def count(self) -> dict[str, int]:
        done = self.run("backup", "count")
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
        return dict(json.loads(done.stdout))

    def refused(self, verb: str, backup: bytes, code: int = 1) -> str:
        """The one sentence on stderr, which holds no secret."""
        done = self.run("backup", verb, given=backup)
        assert (done.returncode, done.stdout) == (code, b""), (done.returncode, done.stdout, done.stderr)
        (line,) = done.stderr.decode().splitlines()
        assert PASSWORD not in line
        assert SECRET not in line
        return line

    def execute(self, *statements: str) -> None:
        async def run() -> None:
            database = Database(self.url)
            async with database.write() as connection:
                for statement in statements:
                    await connection.execute(sa.text(statement))
            await database.close()

        asyncio.run(run())

    def write(self, documents: int, size: int = 10) -> None:
        """Documents whose content does not compress, so that a backup is about as large as they are."""

        async def run() -> None:
            database = Database(self.url)
            rows = [
                {"title": f"number {number}", "content": base64.b64encode(os.urandom(size)).decode()}
                for number in range(1, documents + 1)
            ]
            async with database.write() as connection:
                await connection.execute(sa.insert(tables.documents), rows)
            await database.close()

        asyncio.run(run())

    def titles(self) -> set[str]:
        async def run() -> set[str]:
            database = Database(self.url)
            try:
                async with database.connect() as connection:
                    return {
                        str(title)
                        for title in (await connection.execute(sa.text("SELECT title FROM documents"))).scalars()
                    }
            finally:
                await database.close()

        return asyncio.run(run())


@pytest.fixture
def operator(tmp_path: Path, database_url: str) -> Operator:
    run_migrations(database_url)
    operator = Operator(tmp_path, database_url)
    operator.write(3)
    return operator


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Operator:
    url = f"sqlite:///{tmp_path}/data/backend.db"
    (tmp_path / "data").mkdir()
    (tmp_path / "sqlite").mkdir()
    run_migrations(url)
    operator = Operator(tmp_path / "sqlite", url)
    operator.write(3)
    return operator


@pytest.fixture
def on_postgres(tmp_path: Path, cluster: Cluster) -> Operator:
    url = cluster.new_database()
    run_migrations(url)
    operator = Operator(tmp_path, url)
    operator.write(3)
    return operator


@pytest.fixture(autouse=True)
def _nothing_stays(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """No file beside an SQLite database and no scratch database is left behind by any of these tests."""
    kind = getattr(request.node, "callspec", None) and request.node.callspec.params.get("database_url")
    cluster = request.getfixturevalue("cluster") if "cluster" in request.fixturenames or kind == "postgresql" else None
    yield
    assert list(tmp_path.rglob(".*backup-*")) == []
    assert cluster is None or scratch_databases(cluster) == []


def scratch_databases(cluster: Cluster) -> list[str]:
    async def run() -> list[str]:
        database = Database(cluster.url("postgres"))
        try:
            async with database.connect() as connection:
                found = await connection.execute(sa.text("SELECT datname FROM pg_database WHERE datname ~ '_scratch_'"))
                return [str(name) for name in found.scalars()]
        finally:
            await database.close()

    return asyncio.run(run())


ROWS = {"alembic_version": 1, "documents": 3, "schema_support": 1}


def test_a_backup_has_the_rows_of_the_live_database_and_they_are_told_by_name(operator: Operator) -> None:
    backup = operator.create()

    assert operator.verify(backup) == operator.count() == ROWS
    assert operator.run("backup", "count").stdout == b'{"alembic_version": 1, "documents": 3, "schema_support": 1}\n'


def test_a_backup_tells_its_revision_without_being_restored(operator: Operator) -> None:
    backup = operator.create()
    at = operator.run("migrate", "status").stdout
    operator.execute("UPDATE alembic_version SET version_num = '0000'")

    done = operator.run("backup", "status", given=backup)
    assert (done.stdout, done.stderr) == (at, b"")
    assert at.strip() not in (b"none", b"0000", b"")
    assert "no backup that can be used" in operator.refused("status", b"something else")


def test_anonymising_leaves_the_documents_and_nothing_of_what_they_said(operator: Operator) -> None:
    operator.execute("UPDATE documents SET created_by = 'alice' WHERE title = 'number 1'")

    done = operator.run("backup", "anonymise")
    assert (done.stdout, done.stderr) == (b"anonymised 3 documents\n", b"")
    assert operator.titles() == {"Document 1", "Document 2", "Document 3"}
    left = operator.create()
    assert operator.verify(left) == ROWS
    assert b"alice" not in left


def test_a_restore_brings_back_what_the_backup_has_and_nothing_else(operator: Operator) -> None:
    backup = operator.create()
    operator.execute(
        "DELETE FROM documents WHERE title = 'number 2'",
        "INSERT INTO documents (title, content) VALUES ('later', '')",
        "CREATE TABLE later (id integer PRIMARY KEY)",
        "CREATE VIEW latest AS SELECT title FROM documents",
    )

    done = operator.run("backup", "restore", given=backup)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"restored\n", b"")
    assert operator.titles() == {"number 1", "number 2", "number 3"}
    assert operator.count() == ROWS
    assert operator.run("migrate", "plan").stdout == b""
    operator.execute("INSERT INTO documents (title, content) VALUES ('after', '')")
    assert len(operator.titles()) == 4


def test_a_backup_from_before_a_migration_takes_the_schema_back(tmp_path: Path, database_url: str) -> None:
    operator = Operator(tmp_path, database_url)
    assert operator.run("migrate", "up", "0001").returncode == 0
    backup = operator.create()
    assert operator.run("migrate", "up").returncode == 0

    assert operator.run("backup", "restore", given=backup).returncode == 0

    assert operator.run("migrate", "status").stdout == b"0001\n"
    assert operator.run("migrate", "up").returncode == 0


def test_a_process_that_serves_goes_on_after_a_restore(operator: Operator, start: Start) -> None:
    process = start(operator.url)
    backup = operator.create()
    assert process.call("POST", "/api/documents", {"title": "later"}).status == 201

    assert operator.run("backup", "restore", given=backup).returncode == 0

    assert process.call("GET", "/api/ready").status == 200
    assert len(process.call("GET", "/api/documents").json["documents"]) == 3
    assert process.call("POST", "/api/documents", {"title": "after"}).status == 201
    assert len(process.call("GET", "/api/documents").json["documents"]) == 4


def test_a_backup_under_write_load_is_of_one_moment(operator: Operator) -> None:
    """Each write adds a document and counts it in the same transaction; a backup in which they differ is torn."""
    operator.execute("CREATE TABLE tally (n integer)", "INSERT INTO tally SELECT count(*) FROM documents")
    operator.write(20_000, size=500)
    operator.execute("UPDATE tally SET n = (SELECT count(*) FROM documents)")
    stop = threading.Event()
    written = 0

    def load() -> None:
        nonlocal written

        async def run() -> None:
            nonlocal written
            database = Database(operator.url)
            while not stop.is_set():
                async with database.write() as connection:
                    await connection.execute(sa.text("INSERT INTO documents (title, content) VALUES ('load', '')"))
                    await connection.execute(sa.text("UPDATE tally SET n = n + 1"))
                written += 1
            await database.close()

        asyncio.run(run())

    thread = threading.Thread(target=load)
    thread.start()
    try:
        while written < 10:
            time.sleep(0.01)
        before = written
        backup = operator.create()
        during = written - before
    finally:
        stop.set()
        thread.join()

    assert during > 10, "the backup was not taken under load"
    assert operator.verify(backup)["documents"] < operator.count()["documents"]
    assert operator.run("backup", "restore", given=backup).returncode == 0
    documents = operator.count()["documents"]
    operator.execute(f"DELETE FROM tally WHERE n <> {documents}")  # noqa: S608 - a number
    assert operator.count()["tally"] == 1


def test_an_empty_database_has_a_backup_and_it_cannot_be_restored(tmp_path: Path, database_url: str) -> None:
    operator = Operator(tmp_path, database_url)

    backup = operator.create()

    assert operator.verify(backup) == operator.count() == {}
    assert not (tmp_path / "backend.db").exists()
    operator.refused("restore", backup)
    run_migrations(database_url)
    operator.refused("restore", backup)
    assert operator.count()["alembic_version"] == 1


@pytest.mark.parametrize("verb", ["verify", "restore"])
@pytest.mark.parametrize(
    "backup", [b"", b"x", b"not a backup" * 1000, b"PGDMP" + b"\0" * 100, b"SQLite format 3\0" * 300]
)
def test_what_is_no_backup_is_refused(operator: Operator, verb: str, backup: bytes) -> None:
    assert "is no backup that can be used: " in operator.refused(verb, backup)
    assert operator.count() == ROWS


@pytest.mark.parametrize("verb", ["verify", "restore"])
@pytest.mark.parametrize("where", ["cut short", "overwritten in the middle"])
def test_a_damaged_backup_is_refused_and_changes_nothing(operator: Operator, verb: str, where: str) -> None:
    operator.write(2000, size=500)
    before = operator.count()
    backup = bytearray(operator.create())
    middle = len(backup) // 2
    if where == "cut short":
        del backup[middle:]
    else:
        backup[middle : middle + 9000] = b"\xff" * 9000

    operator.refused(verb, bytes(backup))

    assert operator.count() == before


@pytest.mark.parametrize("verb", ["verify", "restore"])
def test_a_database_of_something_else_is_refused(on_sqlite: Operator, tmp_path: Path, verb: str) -> None:
    with sqlite3.connect(tmp_path / "else.db") as other:
        other.execute("CREATE TABLE something (id)")
    other.close()

    line = on_sqlite.refused(verb, (tmp_path / "else.db").read_bytes())

    assert "has tables and no alembic_version among them" in line
    assert on_sqlite.count() == ROWS


def test_a_backup_of_the_other_kind_is_refused(on_sqlite: Operator, on_postgres: Operator) -> None:
    of_sqlite, of_postgres = on_sqlite.create(), on_postgres.create()

    for verb in ("verify", "restore"):
        assert "is no backup that can be used" in on_sqlite.refused(verb, of_postgres)
        assert "is no backup that can be used" in on_postgres.refused(verb, of_sqlite)


def test_a_restore_killed_in_the_middle_leaves_the_old_sqlite_database(on_sqlite: Operator, tmp_path: Path) -> None:
    on_sqlite.write(10_000, size=4000)
    backup = on_sqlite.create()
    on_sqlite.execute("INSERT INTO documents (title, content) VALUES ('later', '')")
    before = on_sqlite.count()
    log = tmp_path / "data" / "backend.db-wal"

    with on_sqlite.begin("backup", "restore") as restoring:
        restoring.input.write(backup)
        restoring.input.close()
        while not log.exists() or log.stat().st_size < len(backup) // 4:
            assert restoring.process.poll() is None, "it ended before it was killed"
            time.sleep(0.001)
        restoring.process.kill()
        assert restoring.process.wait() == -signal.SIGKILL

    assert on_sqlite.count() == before
    assert "later" in on_sqlite.titles()
    assert on_sqlite.run("backup", "restore", given=backup).returncode == 0
    assert "later" not in on_sqlite.titles()


def test_a_restore_killed_in_the_middle_leaves_the_old_postgresql_database(
    on_postgres: Operator, cluster: Cluster
) -> None:
    on_postgres.write(1000, size=4000)
    backup = on_postgres.create()
    on_postgres.execute("INSERT INTO documents (title, content) VALUES ('later', '')")
    before = on_postgres.count()

    with on_postgres.begin("backup", "restore") as restoring:
        restoring.input.write(backup[: len(backup) * 3 // 4])
        wait_for(lambda: "COPY" in " ".join(active(cluster, on_postgres.url)))
        restoring.process.kill()
        assert restoring.process.wait() == -signal.SIGKILL

    wait_for(lambda: not active(cluster, on_postgres.url))
    assert on_postgres.count() == before
    assert "later" in on_postgres.titles()


@pytest.mark.parametrize("verb", ["restore", "verify"])
def test_one_that_is_told_to_stop_while_it_reads_leaves_everything_as_it_was(operator: Operator, verb: str) -> None:
    operator.write(200, size=1000)
    backup, before = operator.create(), operator.count()

    with operator.begin("backup", verb) as begun:
        begun.input.write(backup[: len(backup) * 3 // 4])
        time.sleep(1)
        begun.process.terminate()
        assert begun.process.wait(20) == 143
        assert (begun.output.read(), begun.complaints.read()) == (b"", b"")

    assert operator.count() == before


def test_one_that_is_told_to_stop_while_it_writes_leaves_nothing_behind(operator: Operator) -> None:
    operator.write(1000, size=1000)

    with operator.begin("backup", "create") as creating:
        time.sleep(1)  # nobody reads what it writes, so it waits in the middle
        creating.process.terminate()
        assert creating.process.wait(20) == 143
        assert creating.complaints.read() == b""


def test_what_a_killed_verification_left_is_removed_by_the_next(
    operator: Operator, cluster: Cluster, tmp_path: Path
) -> None:
    backup = operator.create()
    with operator.begin("backup", "verify") as verifying:
        verifying.input.write(backup[:-50])
        wait_for(lambda: bool(scratch_databases(cluster) or list(tmp_path.glob(".*backup-*"))))
        verifying.process.kill()

    assert operator.verify(backup) == ROWS


def test_a_reader_that_leaves_ends_it_without_a_traceback(operator: Operator) -> None:
    operator.write(1000, size=1000)

    with operator.begin("backup", "create") as creating:
        creating.output.read(10)
        creating.output.close()
        assert creating.process.wait(20) == 1
        assert b"Traceback" not in creating.complaints.read()


def test_a_full_disk_is_told(operator: Operator) -> None:
    with Path("/dev/full").open("wb") as full:
        program = [sys.executable, "-m", "backend", "backup", "create"]
        done = subprocess.run(program, env=operator.environ, stdout=full, stderr=subprocess.PIPE, check=False)

    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert "No space left on device" in line


@pytest.mark.parametrize("verb", ["create", "verify", "restore"])
def test_a_terminal_is_refused(on_sqlite: Operator, verb: str) -> None:
    master, terminal = pty.openpty()
    try:
        program = [sys.executable, "-m", "backend", "backup", verb]
        done = subprocess.run(
            program,
            env=on_sqlite.environ,
            stdin=terminal,
            stdout=terminal if verb == "create" else subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(master)
        os.close(terminal)

    assert done.returncode == 64
    assert f"`backend backup {verb} " in done.stderr.decode()


def test_a_live_file_that_is_broken_is_told_with_what_to_do(on_sqlite: Operator, tmp_path: Path) -> None:
    backup = on_sqlite.create()
    live = tmp_path / "data" / "backend.db"
    live.write_bytes(b"broken" * 1000)

    assert "is not a database. Check its file" in on_sqlite.refused("create", b"")
    assert "has to be moved away" in on_sqlite.refused("restore", backup)
    for path in live.parent.glob("backend.db*"):
        path.unlink()
    assert on_sqlite.run("backup", "restore", given=backup).returncode == 0
    assert on_sqlite.count() == ROWS


def test_a_directory_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    operator = Operator(tmp_path, "sqlite:////proc/backend.db")

    assert "cannot be made in /proc" in operator.refused("create", b"")


def test_a_restore_stays_out_of_a_migration(operator: Operator) -> None:
    backup = operator.create()

    async def run() -> None:
        migrations = Migrations(operator.url)
        try:
            async with migrations._locked():
                await asyncio.to_thread(refused)
        finally:
            await migrations.database.close()

    def refused() -> None:
        assert "migration of this database runs" in operator.refused("restore", backup)

    asyncio.run(run())
    assert operator.run("backup", "restore", given=backup).returncode == 0


def test_a_restore_waits_for_a_writer_and_gives_up_on_one_that_never_ends(
    on_sqlite: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = tmp_path / "data" / "backend.db"
    (tmp_path / "backup").write_bytes(on_sqlite.create())
    monkeypatch.setattr(backups_sqlite, "LOCK_TIMEOUT", 0.1)
    monkeypatch.setattr(backups_sqlite, "BUSY_WAIT", 0.3)
    with closing(sqlite3.connect(live, isolation_level=None)) as writer, (tmp_path / "backup").open("rb") as backup:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO documents (title, content) VALUES ('later', '')")
        with pytest.raises(BackupError, match=r"another process has been writing to it for 0\.3 seconds"):
            SqliteBackups(live).restore(backup)
        writer.execute("COMMIT")
        assert on_sqlite.count()["documents"] == 4

        writer.execute("BEGIN IMMEDIATE")
        with on_sqlite.begin("backup", "restore") as restoring:
            restoring.input.write((tmp_path / "backup").read_bytes())
            restoring.input.close()
            time.sleep(2)
            writer.execute("COMMIT")
            assert restoring.process.wait(20) == 0

    assert on_sqlite.count() == ROWS


def test_one_backup_is_verified_at_a_time(on_postgres: Operator, cluster: Cluster) -> None:
    backup = on_postgres.create()
    with on_postgres.begin("backup", "verify") as verifying:
        verifying.input.write(backup[:-50])
        wait_for(lambda: len(scratch_databases(cluster)) == 1)

        assert "Another backup of this database is verified now." in on_postgres.refused("verify", backup)
        verifying.process.terminate()
        verifying.process.wait()


def test_without_a_schema_to_look_into_it_says_so(on_postgres: Operator, cluster: Cluster) -> None:
    database = on_postgres.url.rsplit("/", 1)[1]
    cluster.execute(f"ALTER DATABASE {database} SET search_path TO nowhere")

    assert "No schema in the search path" in on_postgres.refused("create", b"")


def test_without_the_right_to_create_a_database_it_says_what_to_grant(
    on_postgres: Operator, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.execute(f"CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'")
    database = on_postgres.url.rsplit("/", 1)[1]
    cluster.execute("GRANT ALL ON SCHEMA public TO plain", database)
    (tmp_path / "plain").mkdir()
    plain = Operator(tmp_path / "plain", on_postgres.url.replace("//backend:", "//plain:"))

    line = plain.refused("verify", on_postgres.create())

    assert "user plain may not create the database" in line
    assert 'run `ALTER ROLE "plain" CREATEDB`' in line
    cluster.execute("ALTER ROLE plain CREATEDB")
    assert plain.verify(on_postgres.create()) == ROWS


def test_what_belongs_to_others_in_the_same_database_stays(on_postgres: Operator, cluster: Cluster) -> None:
    backup = on_postgres.create()
    database = on_postgres.url.rsplit("/", 1)[1]
    cluster.execute("CREATE SCHEMA reports CREATE TABLE reports.monthly (n integer)", database)
    on_postgres.execute(
        "CREATE TYPE mood AS ENUM ('good')", "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    )
    with_more = on_postgres.create()

    assert on_postgres.run("backup", "restore", given=with_more).returncode == 0
    assert on_postgres.run("backup", "restore", given=backup).returncode == 0
    on_postgres.execute("INSERT INTO reports.monthly VALUES (1)", "CREATE TYPE mood AS ENUM ('bad')")

    cluster.execute("CREATE VIEW reports.titles AS SELECT title FROM documents", database)
    assert "other objects depend on" in on_postgres.refused("restore", backup)
    assert on_postgres.count() == ROWS


def test_the_password_is_on_no_command_line(on_postgres: Operator, cluster: Cluster) -> None:
    on_postgres.write(1000, size=1000)
    backup = on_postgres.create()

    with on_postgres.begin("backup", "create"), on_postgres.begin("backup", "verify") as verifying:
        verifying.input.write(backup[: len(backup) * 3 // 4])
        wait_for(lambda: "COPY" in " ".join(active(cluster, "/" + "".join(scratch_databases(cluster)))))
        lines = b"".join(content(path) for path in Path("/proc").glob("[0-9]*/cmdline"))
        verifying.process.terminate()
        verifying.process.wait()

    assert b"pg_dump" in lines
    assert b"pg_restore" in lines
    assert PASSWORD.encode() not in lines


def test_a_server_that_is_gone_is_told(tmp_path: Path) -> None:
    operator = Operator(tmp_path, "postgresql://backend:hidden@127.0.0.1:9/x")

    for verb in ("create", "verify", "count", "restore"):
        line = operator.refused(verb, b"")
        assert "The database postgresql://backend:***@127.0.0.1:9/x cannot be reached" in line
        assert "hidden" not in line


def test_the_encryption_that_the_url_asks_for_is_asked_for_by_the_programs_too(
    on_postgres: Operator, tmp_path: Path
) -> None:
    environment = libpq_environment(f"{on_postgres.url}?sslmode=verify-ca&sslrootcert=/ca.pem&connection_limit=3")

    assert (environment["PGSSLMODE"], environment["PGSSLROOTCERT"]) == ("verify-ca", "/ca.pem")
    assert environment["PGPASSWORD"] == PASSWORD
    bundle = libpq_environment(f"{on_postgres.url}?sslmode=verify-full")["PGSSLROOTCERT"]
    assert bundle == "system" or Path(bundle).is_file()
    done = subprocess.run(
        ["pg_dump"],
        env={**os.environ, **libpq_environment(f"{on_postgres.url}?sslmode=require")},
        capture_output=True,
        check=False,
    )
    assert b"server does not support SSL, but SSL was required" in done.stderr


def test_without_the_programs_it_says_what_to_install(on_postgres: Operator, tmp_path: Path) -> None:
    on_postgres.environ["PATH"] = str(tmp_path)

    assert "There is no program pg_dump here." in on_postgres.refused("create", b"")
    assert "There is no program pg_restore here." in on_postgres.refused("verify", b"")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def active(cluster: Cluster, url: str) -> list[str]:
    """The statements of psql in a database."""

    async def run() -> list[str]:
        database = Database(cluster.url("postgres"))
        try:
            async with database.connect() as connection:
                query = "SELECT query FROM pg_stat_activity WHERE datname = :name AND state <> 'idle'"
                found = await connection.execute(sa.text(query), {"name": url.rsplit("/", 1)[1]})
                return [str(query) for query in found.scalars()]
        finally:
            await database.close()

    return asyncio.run(run())


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
