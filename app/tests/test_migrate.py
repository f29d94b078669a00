from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import asyncpg  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from backend import migrate, migrations, tables
from backend.database import Database
from backend.errors import MigrationError, UsageError
from backend.migrate import Migrations, Revision
from backend.readiness import Schema, read_schema
from backend_support import Cluster

NEWEST = "0002"
_T = TypeVar("_T")


def on(url: str, act: Callable[[Migrations], Awaitable[_T]], versions: Path | None = None) -> _T:
    async def run() -> _T:
        migrations = Migrations(url) if versions is None else Migrations(url, versions)
        try:
            return await act(migrations)
        finally:
            await migrations.database.close()

    return asyncio.run(run())


def up(url: str, target: str = "head", versions: Path | None = None) -> list[str]:
    return [step.id for step in on(url, lambda m: m.up(target), versions)]


def down(url: str, target: str = "-1") -> list[str]:
    return [step.id for step in on(url, lambda m: m.down(target))]


def current(url: str) -> str | None:
    return on(url, lambda m: m.current())


def inspect(url: str, look: Callable[[sa.Connection], _T]) -> _T:
    async def run() -> _T:
        database = Database(url)
        try:
            async with database.connect() as connection:
                return await connection.run_sync(look)
        finally:
            await database.close()

    return asyncio.run(run())


def table_names(url: str) -> set[str]:
    return inspect(url, lambda connection: set(sa.inspect(connection).get_table_names()))


def test_an_empty_database_has_every_revision_pending_and_none_applied(database_url: str) -> None:
    pending = on(database_url, lambda m: m.pending())

    assert pending == [
        Revision("0001", "Create documents."),
        Revision("0002", "Record who created a document."),
    ]
    assert current(database_url) is None


def test_looking_at_an_sqlite_database_that_does_not_exist_does_not_make_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"

    assert current(url) is None
    assert len(on(url, lambda m: m.pending())) == 2
    assert list(tmp_path.iterdir()) == []


def test_up_goes_to_the_newest_revision_and_a_second_time_does_nothing(database_url: str) -> None:
    assert up(database_url) == ["0001", "0002"]
    assert current(database_url) == NEWEST
    assert on(database_url, lambda m: m.pending()) == []
    assert up(database_url) == []


def test_up_can_stop_at_a_revision(database_url: str) -> None:
    assert up(database_url, "0001") == ["0001"]
    assert current(database_url) == "0001"


def sql(url: str, versions: Path | None = None) -> str:
    return "\n".join(on(url, lambda m: m.sql(), versions))


def test_the_sql_of_up_is_told_revision_by_revision_and_always_the_same(database_url: str) -> None:
    told = sql(database_url)

    headings = [line for line in told.splitlines() if line.startswith("--")]
    assert headings == ["-- 0001 Create documents.", "-- 0002 Record who created a document."]
    first, second = told.split("-- 0002")
    assert "CREATE TABLE documents" in first
    assert "INSERT INTO schema_support (id, oldest_head) VALUES (1, '0001');" in first
    assert "ALTER TABLE documents ADD COLUMN created_by VARCHAR(200);" in second
    assert "UPDATE alembic_version SET version_num='0002'" in second
    assert sql(database_url) == told
    assert current(database_url) is None


def test_the_sql_of_up_is_of_what_is_pending_and_nothing_when_nothing_is(database_url: str) -> None:
    up(database_url, "0001")
    assert sql(database_url).startswith("-- 0002 Record who created a document.\n")

    up(database_url)
    assert sql(database_url) == ""


def test_the_sql_that_is_told_does_what_up_does(database_url: str, versions: Path) -> None:
    add(versions, "0003", "0002", RICH)
    up(database_url, "0001")
    inspect(database_url, _insert)

    run_script(database_url, sql(database_url, versions))

    assert on(database_url, lambda m: m.current(), versions) == "0003"
    columns = inspect(database_url, lambda c: [column["name"] for column in sa.inspect(c).get_columns("documents")])
    assert columns == ["id", "title", "content", "created_by", "note"]
    note = inspect(database_url, lambda c: c.exec_driver_sql("SELECT note FROM documents").scalar_one())
    assert note == "it's; new\n\n-- Running upgrade"
    assert inspect(database_url, lambda c: c.exec_driver_sql("SELECT title FROM documents").scalar_one()) == "kept"


def run_script(url: str, script: str) -> None:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.executescript(script)
        return

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(script)
        finally:
            await connection.close()

    asyncio.run(run())


def test_sql_looks_at_the_live_schema_and_not_at_its_data(tmp_path: Path, versions: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    up(url)
    inspect(url, _insert)
    add(versions, "0003", "0002", RICH)
    before = (tmp_path / "x.db").read_bytes()

    told = sql(url, versions)

    assert "CREATE TABLE _alembic_tmp_documents" in told
    assert "kept" not in told
    assert not any(line.startswith(("PRAGMA", "SELECT", "BEGIN", "COMMIT")) for line in told.splitlines())
    assert (tmp_path / "x.db").read_bytes() == before


def test_a_revision_that_cannot_be_told_as_sql_is_named(database_url: str, versions: Path) -> None:
    up(database_url)
    add(versions, "0003", "0002", 'op.get_bind().execute(sa.text("SELECT 1 FROM documents")).scalar_one()')

    with pytest.raises(MigrationError, match=r"Revision 0003 \(Revision 0003\.\) cannot be told as SQL: "):
        sql(database_url, versions)


def test_a_description_of_two_lines_stays_one_comment(tmp_path: Path, versions: Path) -> None:
    add(versions, "0003", "0002", GOOD)
    path = versions / "0003_test.py"
    path.write_text(path.read_text().replace("Revision 0003.", "Goes on\nDROP TABLE documents;"))

    told = sql(f"sqlite:///{tmp_path}/x.db", versions)

    assert "-- 0003 Goes on\n" in told
    assert "DROP TABLE" not in told


def test_down_to_where_the_schema_is_does_nothing(database_url: str) -> None:
    assert down(database_url, "base") == []
    up(database_url)
    assert down(database_url, NEWEST) == []
    assert down(database_url, "0001") == ["0002"]
    assert down(database_url, "0001") == []
    assert current(database_url) == "0001"
    with pytest.raises(UsageError, match="There is no way from revision 0001"):
        down(database_url, "0002")


def test_down_takes_back_one_revision_at_a_time_and_keeps_the_documents(database_url: str) -> None:
    up(database_url)
    inspect(database_url, _insert)

    assert down(database_url) == ["0002"]
    assert current(database_url) == "0001"
    assert inspect(database_url, lambda c: c.exec_driver_sql("SELECT title FROM documents").scalar_one()) == "kept"

    assert down(database_url) == ["0001"]
    assert current(database_url) is None
    assert down(database_url) == []


def _insert(connection: sa.Connection) -> None:
    connection.execute(sa.insert(tables.documents).values(title="kept", content=""))
    connection.commit()


def test_down_to_base_and_up_again(database_url: str) -> None:
    up(database_url)

    assert down(database_url, "base") == ["0002", "0001"]
    assert table_names(database_url) == {"alembic_version"}
    assert up(database_url) == ["0001", "0002"]


def test_ids_are_never_given_out_twice_even_after_down_has_copied_the_table(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    up(url)
    down(url)
    up(url)

    def third(connection: sa.Connection) -> int:
        for _ in range(2):
            _insert(connection)
        connection.exec_driver_sql("DELETE FROM documents")
        connection.commit()
        _insert(connection)
        return int(connection.exec_driver_sql("SELECT id FROM documents").scalar_one())

    assert inspect(url, third) == 3


def test_the_migrations_make_the_tables_that_the_code_works_with(database_url: str) -> None:
    up(database_url)

    def differences(connection: sa.Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), tables.metadata))

    assert inspect(database_url, differences) == []


def test_the_head_told_from_file_names_is_the_head_of_the_chain(tmp_path: Path) -> None:
    scripts = Migrations(f"sqlite:///{tmp_path}/x.db")._scripts

    assert migrations.head() == scripts.get_current_head() == NEWEST
    assert len(scripts.get_bases()) == 1


def test_the_schema_says_which_releases_can_run_on_it(database_url: str) -> None:
    async def run() -> Schema:
        database = Database(database_url)
        try:
            return await read_schema(database)
        finally:
            await database.close()

    assert asyncio.run(run()) == Schema(None, None)
    up(database_url)
    assert asyncio.run(run()) == Schema(NEWEST, "0001")


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """The real revisions, in a place where a test can add to them."""
    copied = tmp_path / "versions 100%"
    shutil.copytree(migrations.HERE / "versions", copied, ignore=shutil.ignore_patterns("__pycache__"))
    return copied


def add(versions: Path, revision: str, down: str, body: str) -> None:
    text = f'"""Revision {revision}."""\n\nfrom alembic import op\nimport sqlalchemy as sa\n\n'
    text += f'revision = "{revision}"\ndown_revision = "{down}"\n\n\ndef upgrade():\n'
    text += "".join(f"    {line}\n" for line in body.splitlines())
    (versions / f"{revision}_test.py").write_text(text + "\n\ndef downgrade():\n    pass\n")


GOOD = 'op.create_table("good", sa.Column("id", sa.Integer, primary_key=True))'
RICH = """\
with op.batch_alter_table("documents", table_kwargs={"sqlite_autoincrement": True}) as batch:
    batch.drop_column("created_at")
    batch.add_column(sa.Column("note", sa.Text))
op.execute("UPDATE documents SET note = 'it''s; new\\n\\n-- Running upgrade'")"""
NARROWING = """op.execute("UPDATE schema_support SET oldest_head = '0003'")"""
BROKEN = """\
op.create_table("half", sa.Column("id", sa.Integer, primary_key=True))
with op.batch_alter_table("documents") as batch:
    batch.add_column(sa.Column("half", sa.Integer))
    batch.drop_column("created_by")
op.execute("INSERT INTO half VALUES (1)")
op.execute("SELECT x FROM nowhere")"""


def test_a_revision_that_fails_leaves_the_schema_as_the_one_before_left_it(database_url: str, versions: Path) -> None:
    up(database_url)
    add(versions, "0003", "0002", GOOD)
    add(versions, "0004", "0003", BROKEN)

    with pytest.raises(MigrationError) as caught:
        up(database_url, versions=versions)

    assert caught.value.what.startswith("Revision 0004 (Revision 0004.) failed and was rolled back: ")
    assert "nowhere" in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.do_next.startswith("The schema is at revision 0003;")
    assert table_names(database_url) == {"alembic_version", "documents", "good", "schema_support"}
    columns = inspect(database_url, lambda c: [column["name"] for column in sa.inspect(c).get_columns("documents")])
    assert columns == ["id", "title", "content", "created_at", "created_by"]
    assert on(database_url, lambda m: m.current(), versions) == "0003"


def test_a_revision_that_crashes_in_its_own_code_is_rolled_back_too(database_url: str, versions: Path) -> None:
    add(versions, "0003", "0002", GOOD + '\nraise RuntimeError("a mistake")')

    with pytest.raises(MigrationError, match=r"Revision 0003 .* failed and was rolled back: a mistake"):
        up(database_url, versions=versions)

    assert current(database_url) == NEWEST
    assert "good" not in table_names(database_url)


def test_a_revision_that_would_leave_rows_pointing_to_nothing_is_rolled_back(tmp_path: Path, versions: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    add(
        versions,
        "0003",
        "0002",
        'op.execute("CREATE TABLE child (of integer REFERENCES documents (id))")\n'
        'op.execute("INSERT INTO child VALUES (7)")',
    )

    with pytest.raises(MigrationError, match="a row of child would point to nothing in documents"):
        up(url, versions=versions)

    assert "child" not in table_names(url)


UNKNOWN = "at revision 0003, which this release does not know"


def test_a_schema_of_a_newer_release_is_left_alone_and_named(database_url: str, versions: Path) -> None:
    add(versions, "0003", "0002", GOOD)
    up(database_url, versions=versions)

    with pytest.raises(MigrationError, match=UNKNOWN):
        up(database_url)
    with pytest.raises(MigrationError, match=UNKNOWN):
        down(database_url)
    assert current(database_url) == "0003"


def test_nothing_is_pending_on_a_newer_schema_that_this_release_can_run_on(database_url: str, versions: Path) -> None:
    add(versions, "0003", "0002", GOOD)
    up(database_url, versions=versions)

    assert on(database_url, lambda m: m.pending()) == []


def test_what_is_pending_is_not_told_on_a_newer_schema_that_leaves_this_release_behind(
    database_url: str, versions: Path
) -> None:
    add(versions, "0003", "0002", NARROWING)
    up(database_url, versions=versions)

    with pytest.raises(MigrationError, match=UNKNOWN):
        on(database_url, lambda m: m.pending())


@pytest.mark.parametrize("target", ["0009", "nonsense", "0001:0002"])
def test_a_revision_that_does_not_exist_is_refused(tmp_path: Path, target: str) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    up(url)

    with pytest.raises(UsageError, match="There is no way from revision 0002"):
        down(url, target)
    with pytest.raises(UsageError, match="There is no way from revision 0002"):
        up(url, target)


def test_two_runs_at_once_apply_each_revision_once(database_url: str) -> None:
    applied: list[list[str]] = []
    runs = [threading.Thread(target=lambda: applied.append(up(database_url))) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()

    assert sorted(applied) == [[], [], [], ["0001", "0002"]]


def test_a_run_that_does_not_get_its_turn_says_so(database_url: str) -> None:
    async def run() -> None:
        first, second = Migrations(database_url), Migrations(database_url, lock_wait=0.2)
        try:
            async with first._locked():
                await second.up()
        finally:
            await first.database.close()
            await second.database.close()

    with pytest.raises(MigrationError, match=r"Another migration of this database still runs after 0\.2 seconds"):
        asyncio.run(run())
    assert current(database_url) is None


def test_a_revision_gives_up_on_a_busy_table_instead_of_stopping_all_traffic(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = cluster.new_database()
    up(url, "0001")
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", 0.2)

    def reader(connection: sa.Connection) -> None:
        connection.execute(sa.text("SELECT * FROM documents"))
        with pytest.raises(MigrationError, match="canceling statement due to lock timeout"):
            _in_thread(lambda: up(url))

    inspect(url, reader)
    assert current(url) == "0001"


def _in_thread(act: Callable[[], object]) -> None:
    """Run what needs an event loop of its own, and raise what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except MigrationError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
