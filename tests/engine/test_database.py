"""The bundled PostgreSQL on the engine of this machine: kept as declared, reached over TLS, left alone otherwise."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from slipway.database import reach, wire
from slipway.errors import PreflightError
from slipway.protocol import PROTOCOL
from tests.database import PASSWORDS, request
from tests.engine import postgres
from tests.engine.conftest import PREFIX, RefusedError, docker, free_port

pytestmark = pytest.mark.long

NAME = f"{PREFIX}db"
HOST = "127.0.0.1"


class Database:
    """One of these, under a folder of its own."""

    def __init__(self, root: Path, image: str, port: int) -> None:
        self.root, self.image, self.port = root, image, port
        self.folder = root / f"{NAME}-database"
        self.container = f"slipway-{NAME}-database-postgres-1"
        self.said: list[str] = []

    def ask(self, **change: Any) -> dict[str, Any]:
        """Bring it to what is declared, but for a change."""
        return self.call("database", {**request(NAME, self.image, port=self.port), **change})

    def call(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        done = self.slipway(verb, "--json", stdin=json.dumps({"protocol": PROTOCOL, **body}))
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        if not answer["ok"]:
            raise RefusedError(verb, done.returncode, answer)
        return answer

    def slipway(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "slipway.cli", "--root", str(self.root), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        self.said.append(done.stdout + done.stderr)
        return done

    @property
    def ca(self) -> str:
        return (self.folder / "authority/ca.crt").read_text()

    def as_(self, role: str, **change: Any) -> Any:
        """A session as a client would have one, as `owner` or `user`."""
        name = {"owner": "shop_owner", "user": "shop"}[role]
        given: dict[str, Any] = {
            "host": HOST,
            "port": self.port,
            "user": name,
            "password": PASSWORDS[role],
            "database": "shop",
            "tls": "verify-full",
            "ca": self.ca,
        }
        return wire.session(**{**given, **change})

    def born(self) -> str:
        """Which container it is, and since when it runs."""
        return docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", self.container)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    yield postgres.build()
    postgres.remove_images()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, image: str) -> Iterator[Database]:
    one = Database(tmp_path_factory.mktemp("root"), image, free_port())
    answer = one.ask()
    assert answer["changed"]
    yield one
    one.ask(state="absent", purge=True)
    assert docker("volume", "ls", "--quiet", "--filter", f"name={NAME}") == ""


def test_a_second_run_changes_nothing_and_is_quick(database: Database) -> None:
    before, began = database.born(), time.monotonic()
    answer = database.ask()
    assert answer["changed"] is False
    assert answer["msg"] == f"Stack {NAME}-database: As declared."
    assert database.ask(check=True)["changed"] is False
    assert database.born() == before
    assert time.monotonic() - began < 6


def test_the_application_reads_and_writes_rows_and_nothing_else(database: Database) -> None:
    with database.as_("owner") as owner:
        owner.ask("CREATE TABLE IF NOT EXISTS item (id serial PRIMARY KEY, name text)")
    with database.as_("user") as user:
        user.ask("INSERT INTO item (name) VALUES ('one')")
        user.ask("UPDATE item SET name = 'two'")
        assert user.ask("SELECT name FROM item") == [["two"]]
        user.ask("DELETE FROM item")
        for forbidden in (
            "CREATE TABLE other ()",
            "DROP TABLE item",
            "ALTER TABLE item ADD COLUMN more int",
            "TRUNCATE item",
            "CREATE EXTENSION citext",
            "CREATE DATABASE other",
            "CREATE ROLE other",
            "SET ROLE shop_owner",
            "SELECT pg_read_file('/etc/passwd')",
        ):
            with database.as_("user") as again, pytest.raises(wire.WireError, match=r"permission denied|must be owner"):
                again.ask(forbidden)


def test_the_server_is_verified_by_its_address_and_its_name(database: Database) -> None:
    with database.as_("user") as user:
        assert user.ask("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")[0][0] is True
    with pytest.raises(wire.WireError, match="its certificate does not do: Hostname mismatch"):
        database.as_("user", host="localhost").__enter__()
    with pytest.raises(wire.WireError, match="its certificate does not do"):
        database.as_("user", ca="").__enter__()


def test_nobody_gets_in_without_tls_without_the_password_or_as_another(database: Database) -> None:
    for change in (
        {"tls": "disable"},
        {"user": "postgres", "password": PASSWORDS["superuser"]},
        {"database": "postgres"},
    ):
        with pytest.raises(wire.WireError, match=r"pg_hba.conf rejects connection"):
            database.as_("user", **change).__enter__()
    with pytest.raises(wire.WireError, match="password authentication failed"):
        database.as_("user", password="wrong").__enter__()


def test_what_is_not_let_in_by_its_address_is_rejected(database: Database) -> None:
    database.ask(clients=["10.20.0.11"])
    try:
        with pytest.raises(wire.WireError, match=r"pg_hba.conf rejects connection"):
            database.as_("user").__enter__()
    finally:
        database.ask()
    with database.as_("user") as user:
        assert user.ask("SELECT 1") == [[1]]


@pytest.mark.parametrize(
    ("change", "restarts", "said"),
    [
        ({"settings": {"work_mem": "7MB"}}, False, "the server has read its files again"),
        ({"settings": {"archive_command": "cp %p /tmp/%f"}}, False, "the server has read its files again"),
        ({"clients": [HOST, "10.9.0.0/16"]}, False, "conf/pg_hba.conf is written"),
        ({"names": ["other"]}, False, "the certificate is made: Hostname mismatch"),
        ({"passwords": {**PASSWORDS, "user": "x" * 40}}, False, "the role shop gets its password"),
        ({"database": {"name": "shop", "owner": "shop_owner", "user": "shop", "extensions": ["citext"]}}, False,
         "the extension citext is made"),
        ({"settings": {"archive_mode": "off"}}, True, "the server was restarted for archive_mode"),
    ],
)  # fmt: skip
def test_a_change_replaces_no_container(database: Database, change: dict[str, Any], restarts: bool, said: str) -> None:
    container, since = database.born().split()
    foretold = database.ask(**change, check=True)
    assert foretold["changed"]
    assert database.born() == f"{container} {since}"
    answer = database.ask(**change)
    assert said in answer["msg"]
    assert not database.ask(**change)["changed"]
    now, now_since = database.born().split()
    assert now == container
    assert (now_since != since) == restarts
    database.ask()


def test_settings_that_postgresql_does_not_take_change_nothing(database: Database) -> None:
    before = (database.folder / "conf/postgresql.conf").read_text()
    with pytest.raises(RefusedError, match="PostgreSQL does not accept the settings") as refused:
        database.ask(settings={"work_mem": "plenty"})
    assert 'invalid value for parameter "work_mem": "plenty"' in refused.value.details
    assert (database.folder / "conf/postgresql.conf").read_text() == before
    assert not database.ask()["changed"]


def test_rights_that_were_changed_by_hand_are_put_right(database: Database) -> None:
    def psql(statement: str) -> None:
        docker("exec", database.container, "psql", "--dbname=shop", "--command", statement)

    psql("CREATE TABLE IF NOT EXISTS hand (n int); ALTER TABLE hand OWNER TO shop_owner")
    for statement in (
        "ALTER ROLE shop SUPERUSER",
        "ALTER ROLE shop PASSWORD 'another password'",
        "REVOKE SELECT ON hand FROM shop",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "GRANT CONNECT ON DATABASE shop TO PUBLIC",
    ):
        psql(statement)
        assert database.ask()["changed"], statement
        assert not database.ask()["changed"], statement
    with database.as_("user") as user:
        assert user.ask("SELECT count(*) FROM hand") == [[0]]


def test_no_secret_is_told_or_shown(database: Database) -> None:
    shown = {
        "what the engine says": "".join(database.said),
        "docker inspect": docker("inspect", database.container),
        "the log of the server": docker("logs", database.container),
        "the settings": "".join(path.read_text() for path in (database.folder / "conf").iterdir()),
        "compose.yml": (database.folder / "compose.yml").read_text(),
    }
    for where, text in shown.items():
        assert not [name for name, password in PASSWORDS.items() if password in text], where
    modes = {
        path: (database.folder / path).stat() for path in ("secrets/superuser", "tls/server.key", "authority/ca.key")
    }
    assert {path: stat.st_mode & 0o7777 for path, stat in modes.items()} == {
        "secrets/superuser": 0o400,
        "tls/server.key": 0o400,
        "authority/ca.key": 0o600,
    }
    assert modes["authority/ca.key"].st_uid == 0
    assert "ca.key" not in docker("exec", database.container, "ls", "/etc/postgresql-tls")


def test_a_key_that_a_killed_call_has_not_handed_over_is_handed_over(database: Database) -> None:
    key = database.folder / "tls/server.key"
    os.chown(key, 0, 0)
    assert not database.ask()["changed"]
    assert (key.stat().st_uid, key.stat().st_mode & 0o777) == (999, 0o400)


def test_data_of_another_major_version_is_refused_with_what_to_do(database: Database) -> None:
    with pytest.raises(RefusedError, match=r"is PostgreSQL 17, and 18 is declared") as refused:
        database.ask(version=18)
    assert "playbooks/database-upgrade.yml" in refused.value.do_next


def test_a_new_minor_version_takes_its_place_with_the_data_and_clients_come_back(
    database: Database, image: str
) -> None:
    newer = f"{postgres.REPOSITORY}:newer"
    subprocess.run(["docker", "build", "--tag", newer, "-"], input=f"FROM {image}\nLABEL newer=yes\n", text=True,
                   check=True, capture_output=True)  # fmt: skip
    with database.as_("owner") as owner:
        owner.ask("CREATE TABLE IF NOT EXISTS kept (n int); INSERT INTO kept VALUES (1)")
    before = database.born()
    answer = database.ask(**{key: request(NAME, newer, port=database.port)[key] for key in ("compose", "image")})
    assert "postgres runs with other settings" in answer["msg"]
    assert database.born().split()[0] != before.split()[0]
    with database.as_("user") as user:
        assert user.ask("SELECT n FROM kept") == [[1]]
    # It ended as it should: nothing had to be read again from the log of what was not written yet.
    assert "not properly shut down" not in docker("logs", database.container)
    database.ask()


def test_a_stopped_one_is_started_again(database: Database) -> None:
    assert database.ask(state="stopped")["changed"]
    assert not database.ask(state="stopped")["changed"]
    assert "postgres is exited" in database.ask()["msg"]


# --- whether it can be used ---------------------------------------------------------------------------------------


def reaching(database: Database, **change: Any) -> reach.ReachRequest:
    given: dict[str, Any] = {
        "host": HOST,
        "port": database.port,
        "name": "shop",
        "user": "shop",
        "password": PASSWORDS["user"],
        "owner": "shop_owner",
        "owner_password": PASSWORDS["owner"],
        "tls": "verify-full",
        "ca": database.ca,
        "version": 17,
    }
    return reach.ReachRequest(**{**given, **change})


def test_one_that_has_what_is_needed_can_be_used(database: Database) -> None:
    assert re.fullmatch(r"17\.\d+", reach.reach(reaching(database, extensions=["plpgsql"]))["version"])
    reach.reach(reaching(database, tls="require", ca=""))


@pytest.mark.parametrize(
    ("change", "what", "do_next"),
    [
        ({"port": 1}, "This host cannot reach the database shop on 127.0.0.1:1: connection refused.", "any firewall"),
        ({"port": 1, "bundled": True}, "cannot reach", "playbooks/database.yml brings it up"),
        (
            {"host": "nowhere.invalid"},
            "This host cannot reach the database shop on nowhere.invalid:",
            "app_database.host",
        ),
        ({"ca": ""}, "cannot be encrypted as app_database.tls asks: its certificate does not do", "app_database.ca"),
        ({"host": "localhost"}, "its certificate does not do: Hostname mismatch", "its own name in app_database.host"),
        ({"ca": "", "bundled": True}, "The certificate of the database's authority is not known here", "database.yml"),
        (
            {"password": "wrong"},
            "does not take the password of one of the roles shop, shop_owner.",
            "database_password",
        ),
        ({"owner_password": "wrong"}, "does not take the password", "database_owner_password"),
        ({"user": "nobody"}, "does not let this host in: pg_hba.conf rejects", "Let an administrator allow this host"),
        ({"tls": "disable"}, "does not let this host in: pg_hba.conf rejects", "TLS there"),
        ({"version": 18}, "is PostgreSQL 17, and app_database.version asks for 18.", "Upgrade the server"),
        ({"extensions": ["postgis"]}, "does not have the extension postgis.", "its provider"),
        ({"extensions": ["hstore"]}, "lacks the extension hstore.", 'CREATE EXTENSION "hstore"'),
        ({"owner": "shop", "owner_password": PASSWORDS["user"]}, "The role shop may not make tables", "GRANT CREATE"),
    ],
)
def test_what_keeps_it_from_being_used_is_said(
    database: Database, change: dict[str, Any], what: str, do_next: str
) -> None:
    with pytest.raises(PreflightError) as refused:
        reach.reach(reaching(database, **change))
    assert what in refused.value.what
    assert do_next in refused.value.do_next
    assert not [name for name, password in PASSWORDS.items() if password in str(refused.value)]


@pytest.mark.parametrize("tls", ["require", "disable"])
def test_what_is_no_postgresql_is_told_from_one(database: Database, tls: str) -> None:
    with socket.create_server((HOST, 0)) as other:
        threading.Thread(target=_greet, args=[other], daemon=True).start()
        with pytest.raises(PreflightError, match="what answers there is no PostgreSQL"):
            reach.reach(reaching(database, port=other.getsockname()[1], tls=tls))


def _greet(server: socket.socket) -> None:
    """Answer once, as a mail server does, and wait for what comes."""
    stream, _ = server.accept()
    with stream, suppress(ConnectionError):
        stream.sendall(b"220 mail.example ESMTP ready when you are\r\n")
        while stream.recv(1024):
            pass


# --- what people look at ------------------------------------------------------------------------------------------


def test_people_see_how_large_it_is_and_who_does_what(database: Database) -> None:
    assert "the largest tables" in database.slipway("db", "size").stdout
    with database.as_("user") as user:
        user.ask("SELECT 1")
        assert "slipway preflight" in database.slipway("db", "activity").stdout


def test_people_see_who_waits_for_whom(database: Database) -> None:
    with database.as_("owner") as owner:
        owner.ask("CREATE TABLE IF NOT EXISTS busy (n int)")
        owner.ask("BEGIN; LOCK TABLE busy")
        waiting = subprocess.Popen(
            ["docker", "exec", database.container, "psql", "--command", "TABLE busy"], stdout=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 10
            while "LOCK TABLE busy" not in (said := database.slipway("db", "locks").stdout):
                assert time.monotonic() < deadline, said
        finally:
            owner.ask("COMMIT")
            waiting.wait()
    assert "(0 rows)" in database.slipway("db", "locks").stdout


def test_a_dump_can_be_restored(database: Database, tmp_path: Path) -> None:
    with database.as_("owner") as owner:
        owner.ask("CREATE TABLE IF NOT EXISTS dumped (n int)")
    out = tmp_path / "shop.dump"
    assert database.slipway("db", "dump", "--out", str(out)).returncode == 0
    assert out.stat().st_mode & 0o777 == 0o600
    listed = subprocess.run(
        ["docker", "run", "--rm", "--interactive", database.image, "pg_restore", "--list"],
        input=out.read_bytes(),
        capture_output=True,
        check=True,
    )
    assert b"TABLE public dumped shop_owner" in listed.stdout


def test_a_shell_is_psql_in_the_applications_database(database: Database) -> None:
    done = database.slipway("db", "shell", stdin="SELECT current_database();\n")
    assert "shop" in done.stdout
    refused = database.slipway("db", "shell", "--read-only", stdin="CREATE TABLE no ();\n")
    assert "cannot execute CREATE TABLE in a read-only transaction" in refused.stderr


def test_people_look_into_it_by_a_page_on_loopback_that_changes_nothing(database: Database) -> None:
    port, password = free_port(), "inspector-0123456789-0123456789-0123"
    variables = {
        "database_inspector": True,
        "database_inspector_port": port,
        "__database_inspector_reference": postgres.build_inspector(),
    }
    wanted = request(NAME, database.image, port=database.port, inspector=variables)
    wanted["database"] = {**wanted["database"], "inspector": True}
    wanted["passwords"] = {**PASSWORDS, "inspector": password}
    before = database.born()
    assert "the inspector may read" in database.call("database", wanted)["msg"]
    assert not database.call("database", wanted)["changed"]
    assert database.born() == before
    with database.as_("owner") as owner:
        owner.ask("CREATE TABLE IF NOT EXISTS looked_at (n int)")
    try:
        assert "looked_at" in inspected(port, database, password)
        assert "looked_at" not in inspected(port, database, "wrong")
        with database.as_("user", user="inspector", password=password) as session:
            assert session.ask("SELECT count(*) FROM looked_at") == [[0]]
            session.ask("SET default_transaction_read_only = off")
            with pytest.raises(wire.WireError, match="permission denied"):
                session.ask("INSERT INTO looked_at VALUES (1)")
    finally:
        database.ask()
    with pytest.raises(wire.WireError):
        database.as_("user", user="inspector", password=password).__enter__()
    assert docker("ps", "--quiet", "--filter", f"name=slipway-{NAME}-database-inspector") == ""


def inspected(port: int, database: Database, password: str) -> str:
    """What the page shows of the database to who logs in."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    where = f"http://{HOST}:{port}/"
    login = {
        "driver": "pgsql",
        "server": f"{HOST}:{database.port}",
        "username": "inspector",
        "password": password,
        "db": "shop",
    }
    body = urllib.parse.urlencode({f"auth[{key}]": value for key, value in login.items()}).encode()
    try:
        return str(opener.open(where, body, timeout=10).read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())


def test_where_no_database_is_it_says_where_to_look(tmp_path: Path, database: Database) -> None:
    other = Database(tmp_path, database.image, database.port)
    done = other.slipway("db", "size")
    assert done.returncode == 1
    assert done.stderr.startswith("No database runs on this host.\nType it on the host of the group database")
