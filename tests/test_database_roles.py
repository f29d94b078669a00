"""Roles and rights: which SQL brings what the server has to what is declared. Decided without a server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from slipway.database import scram
from slipway.database.roles import Have, Inside, Role, Step, Want, plan, read
from slipway.errors import PreflightError
from tests.database import PASSWORDS

WANT = Want(name="shop", owner="shop_owner", user="shop", extensions=["citext"])
VERIFIERS = {name: scram.verifier(password) for name, password in PASSWORDS.items()}


def inside(**change: Any) -> Inside:
    fields: dict[str, Any] = {
        "extensions": ["plpgsql", "citext"],
        "available": ["plpgsql", "citext", "vector"],
        "schema_owner": "shop_owner",
        "uses": True,
        "creates": False,
        "closed": 0,
        "defaults": ["r", "S", "n"],
        "filled": False,
    }
    return Inside(**{**fields, **change})


def have(**change: Any) -> Have:
    """A server on which all is as WANT says."""
    fields: dict[str, Any] = {
        "loaded": 0.0,
        "pending": [],
        "roles": {
            "postgres": Role(password=VERIFIERS["superuser"], login=True, superuser=True),
            "shop_owner": Role(password=VERIFIERS["owner"], login=True, createdb=True),
            "shop": Role(password=VERIFIERS["user"], login=True),
            "replication": Role(password=VERIFIERS["replication"], login=True, replication=True),
        },
        "database_owner": "shop_owner",
        "public": [],
        "connects": True,
        "reads": False,
        "inside": inside(),
    }
    return Have(**{**fields, **change})


def sql(steps: list[Step]) -> str:
    return "\n".join(step.sql for step in steps)


def role(name: str, **change: Any) -> dict[str, Role]:
    roles = have().roles
    return {**roles, name: msgspec.structs.replace(roles[name], **change)}


def test_nothing_is_done_where_all_is_as_declared() -> None:
    assert plan(WANT, have(), PASSWORDS) == []


def test_a_new_server_gets_all_of_it() -> None:
    empty = have(
        roles={"postgres": have().roles["postgres"]},
        database_owner=None,
        public=["postgres", "template1"],
        connects=False,
        inside=None,
    )
    text = sql(plan(WANT, empty, PASSWORDS))
    assert 'CREATE ROLE "shop_owner" LOGIN NOSUPERUSER CREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;' in text
    assert 'CREATE ROLE "shop" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;' in text
    assert 'CREATE DATABASE "shop" OWNER "shop_owner";' in text
    assert [line for line in text.splitlines() if line.startswith("REVOKE ALL ON DATABASE")] == [
        f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC;' for name in ("postgres", "shop", "template1")
    ]
    assert 'CREATE EXTENSION IF NOT EXISTS "citext";' in text
    assert text.index("CREATE DATABASE") < text.index('\\connect "shop"') < text.index("BEGIN;") < text.index("COMMIT;")


@pytest.mark.parametrize(
    ("change", "statement"),
    [
        ({"roles": role("shop", superuser=True)}, 'ALTER ROLE "shop" LOGIN NOSUPERUSER'),
        ({"roles": role("shop", createrole=True)}, 'ALTER ROLE "shop" LOGIN NOSUPERUSER'),
        ({"roles": role("shop", login=False)}, 'ALTER ROLE "shop" LOGIN NOSUPERUSER'),
        ({"roles": role("shop_owner", bypassrls=True)}, 'ALTER ROLE "shop_owner" LOGIN NOSUPERUSER CREATEDB'),
        ({"roles": role("shop", password=VERIFIERS["owner"])}, 'ALTER ROLE "shop" PASSWORD \'SCRAM-SHA-256$4096:'),
        ({"roles": role("shop", password=None)}, 'ALTER ROLE "shop" PASSWORD \'SCRAM-SHA-256$4096:'),
        ({"roles": role("postgres", password="md5")}, 'ALTER ROLE "postgres" PASSWORD \'SCRAM-SHA-256$4096:'),
        ({"database_owner": "postgres"}, 'ALTER DATABASE "shop" OWNER TO "shop_owner";'),
        ({"public": ["template1"]}, 'REVOKE ALL ON DATABASE "template1" FROM PUBLIC;'),
        ({"connects": False}, 'GRANT CONNECT, TEMPORARY ON DATABASE "shop" TO "shop";'),
        ({"inside": inside(schema_owner="pg_database_owner")}, 'ALTER SCHEMA public OWNER TO "shop_owner";'),
        ({"inside": inside(creates=True)}, 'REVOKE CREATE ON SCHEMA public FROM PUBLIC, "shop";'),
        ({"inside": inside(uses=False)}, 'GRANT USAGE ON SCHEMA public TO "shop";'),
        (
            {"inside": inside(defaults=["S", "n"])},
            'ALTER DEFAULT PRIVILEGES FOR ROLE "shop_owner" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "shop";',
        ),
        (
            {"inside": inside(closed=2)},
            'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "shop";',
        ),
        ({"inside": inside(extensions=[])}, 'CREATE EXTENSION IF NOT EXISTS "citext";'),
    ],
)
def test_what_differs_is_put_right_and_nothing_else(change: dict[str, Any], statement: str) -> None:
    steps = [step for step in plan(WANT, have(**change), PASSWORDS) if step.what]
    assert len(steps) == 1
    assert statement in steps[0].sql


def test_people_get_a_role_that_reads_and_nothing_else() -> None:
    want = msgspec.structs.replace(WANT, inspector=True)
    passwords = {**PASSWORDS, "inspector": "i" * 32}
    text = sql(plan(want, have(), passwords))
    assert 'CREATE ROLE "inspector" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;' in text
    assert [line for line in text.splitlines() if line.startswith("GRANT")] == [
        "GRANT pg_read_all_data TO inspector;",
        'GRANT CONNECT ON DATABASE "shop" TO inspector;',
    ]
    there = {**have().roles, "inspector": Role(login=True, password=scram.verifier("i" * 32))}
    assert plan(want, have(roles=there, reads=True), passwords) == []
    assert sql(plan(WANT, have(roles=there, reads=True), PASSWORDS)) == "ALTER ROLE inspector NOLOGIN;"


def test_no_statement_and_no_word_has_a_password() -> None:
    steps = plan(WANT, have(roles={}, database_owner=None, connects=False, inside=None), PASSWORDS)
    told = sql(steps) + " ".join(step.what for step in steps)
    assert not [name for name, password in PASSWORDS.items() if password in told]


def test_an_extension_that_the_image_lacks_is_refused() -> None:
    want = msgspec.structs.replace(WANT, extensions=["postgis"])
    with pytest.raises(PreflightError, match=r"has no extension postgis\. Take it out"):
        plan(want, have(), PASSWORDS)


def test_init_sql_is_run_by_the_owner_once() -> None:
    want = msgspec.structs.replace(WANT, init_sql="CREATE TABLE t (n int) -- no semicolon")
    text = sql(plan(want, have(), PASSWORDS))
    assert 'SET LOCAL ROLE "shop_owner";\nCREATE TABLE t (n int) -- no semicolon\n;RESET ROLE;' in text
    assert (
        text.index("BEGIN;") < text.index("CREATE TABLE t") < text.index("SET slipway.filled") < text.index("COMMIT;")
    )
    assert plan(want, have(inside=inside(filled=True)), PASSWORDS) == []


def test_an_answer_is_read_with_and_without_the_database() -> None:
    first = msgspec.json.encode(msgspec.structs.replace(have(), inside=None)).decode()
    assert read(f"{first}\n").inside is None
    assert read(f"{first}\n{msgspec.json.encode(inside()).decode()}\n") == have()
