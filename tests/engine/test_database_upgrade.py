"""A bundled database on its way from PostgreSQL 15 to 17, on the engine of this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from slipway.database import wire
from tests.database import PASSWORDS, request
from tests.engine import postgres
from tests.engine.conftest import RefusedError, docker, free_port
from tests.engine.test_database import NAME, Database

pytestmark = pytest.mark.long

ROWS = 1000


@pytest.fixture(scope="module")
def images() -> Iterator[dict[int, str]]:
    yield {15: postgres.build("bookworm", 15), 17: postgres.build("trixie", 17)}
    postgres.remove_images()


@pytest.fixture
def old(tmp_path: Any, images: dict[int, str]) -> Iterator[Database]:
    """One of 15 with data, a role of somebody's own, and what the owner has made since."""
    one = Database(tmp_path, images[15], free_port())
    one.ask(**of(one, images, 15))
    with one.as_("owner") as owner:
        owner.ask("CREATE TABLE item (id serial PRIMARY KEY, name text)")
        owner.ask("CREATE TABLE empty ()")
        owner.ask("INSERT INTO item (name) SELECT md5(n::text) FROM generate_series(1, 1000) n")
    docker("exec", one.container, "psql", "--command", "CREATE ROLE reports LOGIN PASSWORD 'of their own'")
    yield one
    docker("rm", "--force", f"slipway-{NAME}-database-upgrade", check=False)
    one.ask(state="absent", purge=True)
    assert volumes() == set(), "what is removed with its data leaves no older version of it"


def of(database: Database, images: dict[int, str], major: int) -> dict[str, Any]:
    """What is declared for a version."""
    wanted = request(NAME, images[major], port=database.port, version=major)
    return {key: wanted[key] for key in ("compose", "image", "version")}


def upgrade(database: Database, images: dict[int, str], major: int = 17, **change: Any) -> dict[str, Any]:
    body = {**request(NAME, images[major], port=database.port, version=major), **change}
    return database.call("upgrade", body)


def rows(database: Database) -> str:
    with database.as_("user") as user:
        found = user.ask("SELECT count(*), current_setting('server_version_num')::int / 10000 FROM item")
    return "{} rows in {}".format(*found[0])


def volumes() -> set[str]:
    return set(docker("volume", "ls", "--quiet", "--filter", f"name={NAME}-database").split())


def test_all_of_it_is_moved_and_the_old_volume_is_kept(old: Database, images: dict[int, str]) -> None:
    with pytest.raises(RefusedError, match="is PostgreSQL 15, and 17 is declared"):
        old.ask(**of(old, images, 17))
    assert upgrade(old, images, check=True)["changed"]
    assert rows(old) == f"{ROWS} rows in 15"

    answer = upgrade(old, images)
    assert answer["kept"] == f"{NAME}-database-15"
    assert f"PostgreSQL 15 was moved to 17; the volume {NAME}-database-15 keeps the old data." in answer["msg"]
    assert rows(old) == f"{ROWS} rows in 17"
    assert volumes() == {f"{NAME}-database-15", f"{NAME}-database-17"}
    with old.as_("user") as user, pytest.raises(wire.WireError, match="permission denied"):
        user.ask("CREATE TABLE other ()")
    with old.as_("user") as user:
        assert user.ask("INSERT INTO item (name) VALUES ('next') RETURNING id") == [[ROWS + 1]]
    ask = "SELECT rolpassword LIKE 'SCRAM%' FROM pg_authid WHERE rolname = 'reports'"
    assert docker("exec", old.container, "psql", "--tuples-only", "--no-align", "--command", ask) == "t"

    assert not old.ask(**of(old, images, 17))["changed"]
    assert not upgrade(old, images)["changed"]
    assert not [name for name, password in PASSWORDS.items() if password in "".join(old.said)]
    with pytest.raises(RefusedError, match="is PostgreSQL 17, and 15 is older"):
        upgrade(old, images, 15)


def test_one_that_cannot_be_restored_leaves_the_old_one_serving(old: Database, images: dict[int, str]) -> None:
    # Whoever restores it finds that its function refuses, as one would that is of an extension which is not there.
    with old.as_("owner") as owner:
        owner.ask("CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 1; END'")
        owner.ask("CREATE TABLE broken AS SELECT 1 AS n")
        owner.ask("CREATE INDEX refusing ON broken ((fails()))")
        owner.ask(
            "CREATE OR REPLACE FUNCTION fails() RETURNS int LANGUAGE plpgsql IMMUTABLE "
            "AS 'BEGIN RAISE EXCEPTION ''not here''; END'"
        )
    with pytest.raises(RefusedError, match="could not be carried over to PostgreSQL 17") as refused:
        upgrade(old, images)
    assert "not here" in refused.value.details
    assert rows(old) == f"{ROWS} rows in 15"
    assert volumes() == {f"{NAME}-database-15"}
    assert not old.ask(**of(old, images, 15))["changed"]


def test_one_that_was_cut_off_is_begun_anew(old: Database, images: dict[int, str]) -> None:
    # As a killed call leaves it: the mark, a volume that is not whole, a server on it, and nobody let in.
    (old.folder / "upgrading").touch()
    (old.folder / "conf/pg_hba.conf").write_text("local all postgres peer\n")
    left = f"slipway-{NAME}-database-upgrade"
    docker("run", "--detach", "--name", left, "--env", "POSTGRES_PASSWORD=x",
           "--volume", f"{NAME}-database-17:/var/lib/postgresql/data", images[17])  # fmt: skip
    assert upgrade(old, images)["changed"]
    assert rows(old) == f"{ROWS} rows in 17"
    assert not (old.folder / "upgrading").exists()


def test_a_volume_of_somebodys_is_not_overwritten(old: Database, images: dict[int, str]) -> None:
    subprocess.run(["docker", "volume", "create", f"{NAME}-database-17"], check=True, capture_output=True)
    try:
        with pytest.raises(RefusedError, match=rf"There is a volume {NAME}-database-17 already"):
            upgrade(old, images)
        assert rows(old) == f"{ROWS} rows in 15"
    finally:
        docker("volume", "rm", f"{NAME}-database-17")
