"""Sessions with PostgreSQL: against servers of this machine, with TLS and without, and against what is none."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from slipway.database import scram, wire
from slipway.database.reach import ReachRequest, reach
from slipway.errors import PreflightError
from tests.bench.postgres import Postgres
from tests.engine.conftest import free_port

HOST = "127.0.0.1"
PASSWORD = "never-to-be-seen-@:/?#'-0123456789"
RULES = """
local all all scram-sha-256
host all by_md5 127.0.0.1/32 md5
host all in_clear 127.0.0.1/32 password
hostssl all all 127.0.0.1/32 scram-sha-256
hostnossl all by_scram 127.0.0.1/32 scram-sha-256
"""
ROLES = f"""
CREATE ROLE by_scram LOGIN PASSWORD '{scram.verifier(PASSWORD)}';
CREATE ROLE in_clear LOGIN PASSWORD '{scram.verifier(PASSWORD)}';
CREATE ROLE full LOGIN CONNECTION LIMIT 0 PASSWORD '{scram.verifier(PASSWORD)}';
SET password_encryption = md5;
CREATE ROLE by_md5 LOGIN PASSWORD '{PASSWORD.replace("'", "''")}';
"""


class Server:
    """A server with a role for each way to log in."""

    def __init__(self, *, tls: bool) -> None:
        self.port = free_port()
        self.postgres = Postgres(HOST, self.port, tls=tls)
        self.ca = ""

    def start(self) -> None:
        self.postgres.start()
        rules = ", ".join(f"('{rule}')" for rule in RULES.strip().splitlines())
        path = self.postgres.execute("SHOW hba_file")
        self.postgres.execute(f"{ROLES} COPY (VALUES {rules}) TO '{path}'; SELECT pg_reload_conf();")
        # It reads them when it gets to it.
        deadline = time.monotonic() + 10
        while self.postgres.execute("SELECT pg_conf_load_time() > pg_postmaster_start_time()") != "t":
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def as_(self, user: str, **change: Any) -> Any:
        given = {"host": HOST, "port": self.port, "user": user, "password": PASSWORD, "database": "postgres"}
        return wire.session(**{**given, "tls": "verify-full", "ca": self.ca, **change})

    def refusal(self, user: str = "by_scram", **change: Any) -> wire.WireError:
        with pytest.raises(wire.WireError) as refused, self.as_(user, **change):
            pass
        shown = "".join(traceback.format_exception(refused.value))
        assert PASSWORD not in shown
        assert repr(PASSWORD) not in shown
        return refused.value


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    one = Server(tls=True)
    try:
        one.start()
        one.ca = one.postgres.ca
        yield one
    finally:
        one.postgres.stop()


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    one = Server(tls=False)
    try:
        one.start()
        yield one
    finally:
        one.postgres.stop()


@pytest.mark.parametrize("user", ["by_scram", "by_md5", "in_clear"])
@pytest.mark.parametrize(
    ("change", "encrypted"),
    [
        ({}, True),
        ({"tls": "verify-ca", "host": "localhost"}, True),
        ({"tls": "require", "ca": "", "host": "localhost"}, True),
        ({"tls": "disable"}, False),
    ],
    ids=lambda given: given.get("tls", "verify-full") if isinstance(given, dict) else "",
)
def test_a_role_comes_in_by_each_mode_of_tls_and_way_to_log_in(
    server: Server, user: str, change: dict[str, Any], encrypted: bool
) -> None:
    with server.as_(user, **change) as session:
        assert session.ask("SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [
            [user, encrypted]
        ]
        assert session.ask("SHOW application_name") == [["slipway preflight"]]


@pytest.mark.parametrize("user", ["by_scram", "by_md5", "in_clear"])
def test_a_server_without_tls_is_asked_where_none_is_wanted(plain: Server, user: str) -> None:
    with plain.as_(user, tls="disable") as session:
        assert session.ask("SELECT 1, NULL, 'a', '[1]'::json") == [[1, None, "a", [1]]]
    refused = plain.refusal(user, tls="require")
    assert (refused.stage, refused.said) == ("tls", "it speaks no TLS")


@pytest.mark.parametrize(
    ("change", "stage", "said", "code"),
    [
        ({"port": 1}, "connect", "connection refused", ""),
        ({"host": "localhost"}, "tls", "its certificate does not do: Hostname mismatch, certificate is not valid for "
         "'localhost'", ""),
        ({"ca": ""}, "tls", "its certificate does not do: self-signed certificate", ""),
        ({"ca": "", "tls": "verify-ca"}, "tls", "its certificate does not do: self-signed certificate", ""),
        ({"password": f"{PASSWORD} "}, "login", 'password authentication failed for user "by_scram"', "28P01"),
        ({"user": "by_md5", "password": "wrong"}, "login", 'password authentication failed for user "by_md5"', "28P01"),
        ({"user": "full", "tls": "disable"}, "login", f'no pg_hba.conf entry for host "{HOST}", user "full", '
         'database "postgres", no encryption', "28000"),
        ({"database": "none"}, "login", 'database "none" does not exist', "3D000"),
        ({"user": "full"}, "login", 'too many connections for role "full"', "53300"),
    ],
)  # fmt: skip
def test_what_keeps_one_out_is_told_with_how_far_it_came(
    server: Server, change: dict[str, Any], stage: str, said: str, code: str
) -> None:
    refused = server.refusal(**{"user": "by_scram", **change})
    assert (refused.stage, refused.said, refused.code) == (stage, said, code)


def test_a_statement_that_is_refused_ends_no_session(server: Server) -> None:
    with server.as_("by_scram") as session:
        with pytest.raises(wire.WireError, match="permission denied for database postgres") as refused:
            session.ask("CREATE SCHEMA other")
        assert (refused.value.stage, refused.value.code) == ("ask", "42501")
        assert session.ask("SET work_mem = '1MB'") == []
        assert session.ask("SELECT 1") == [[1]]


def test_a_server_that_goes_away_is_told(server: Server) -> None:
    with server.as_("by_scram") as session:
        pid = session.ask("SELECT pg_backend_pid()")[0][0]
        server.postgres.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(wire.WireError) as refused:
            session.ask("SELECT 1")
    assert (refused.value.stage, refused.value.said) == ("ask", "it closes the connection")


def test_an_answer_has_its_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PATIENCE", 0.3)
    began = time.monotonic()
    with server.as_("by_scram", tls="disable") as session, pytest.raises(wire.WireError) as refused:
        session.ask("SELECT pg_sleep(20)")
    assert (refused.value.stage, refused.value.said) == ("ask", "no answer within 0.3 seconds")
    assert time.monotonic() - began < 2


# --- what is no PostgreSQL ----------------------------------------------------------------------------------------

MAIL = b"220 mail.example ESMTP ready when you are\r\n"
SHELL = b"SSH-2.0-OpenSSH_10.0\r\n"
SCRAM = b"R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"
NO_POSTGRESQL = "what answers there is no PostgreSQL"


class Other:
    """Greets, and answers each time that it hears something; one without words hangs up in the middle of it."""

    def __init__(self, greeting: bytes, *answers: bytes) -> None:
        self._greeting, self._answers = greeting, answers
        self._server = socket.create_server((HOST, 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Other:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _serve(self) -> None:
        stream, _ = self._server.accept()
        with stream, suppress(OSError):
            stream.sendall(self._greeting)
            for answer in self._answers:
                stream.recv(1024 if answer else 8)
                if not answer:
                    return
                stream.sendall(answer)
            while stream.recv(1024):
                pass


@pytest.mark.parametrize(
    ("said_by_it", "tls", "stage", "said"),
    [
        ([MAIL], "require", "tls", NO_POSTGRESQL),
        ([MAIL], "disable", "login", NO_POSTGRESQL),
        ([SHELL], "verify-full", "tls", NO_POSTGRESQL),
        ([SHELL], "disable", "login", NO_POSTGRESQL),
        ([b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], "disable", "login", NO_POSTGRESQL),
        ([b"", b"\xff"], "require", "tls", NO_POSTGRESQL),
        ([b""], "require", "tls", "no answer within 0.5 seconds"),
        ([b""], "disable", "login", "no answer within 0.5 seconds"),
        ([b"", b"S"], "require", "tls", "no answer within 0.5 seconds"),
        ([b"", b"N", b"\xff\xff\xff\xff\x00\x00\x00\x08what"], "disable", "login", NO_POSTGRESQL),
        ([b"", b"N"], "disable", "login", "no answer within 0.5 seconds"),
        ([b"", b"N", b""], "disable", "login", "connection reset by peer"),
        ([b"", b"N", b"R\x00\x00\x00\x08\x00\x00\x00\x07"], "disable", "login",
         "Authentication method 7 not supported by pg8000"),
        ([b"", b"N", SCRAM, b"R\x00\x00\x00\x36\x00\x00\x00\x0br=of-another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"],
         "disable", "login", "the login by SCRAM fails: Client nonce doesn't match"),
    ],
)  # fmt: skip
def test_what_is_no_postgresql_or_says_nothing_is_told_from_one(
    monkeypatch: pytest.MonkeyPatch, said_by_it: list[bytes], tls: wire.Tls, stage: str, said: str
) -> None:
    monkeypatch.setattr(wire, "PATIENCE", 0.5)
    with Other(*said_by_it) as other:
        asked = wire.session(host=HOST, port=other.port, user="u", password=PASSWORD, database="d", tls=tls)
        with pytest.raises(wire.WireError) as refused, asked:
            pass
    assert (refused.value.stage, refused.value.said) == (stage, said)
    assert PASSWORD not in "".join(traceback.format_exception(refused.value))


# --- as an operator meets it --------------------------------------------------------------------------------------


def reaching(server: Server, **change: Any) -> ReachRequest:
    given = {
        "host": HOST,
        "port": server.port,
        "name": "postgres",
        "user": "by_scram",
        "password": PASSWORD,
        "owner": "by_scram",
        "owner_password": PASSWORD,
        "tls": "verify-full",
        "ca": server.ca,
        "version": 13,
    }
    return ReachRequest(**{**given, **change})


def test_one_that_has_what_is_needed_can_be_used(server: Server) -> None:
    server.postgres.execute("GRANT CREATE ON SCHEMA public TO by_scram")
    major = server.postgres.execute("SELECT current_setting('server_version_num')::int / 10000")
    answer = reach(reaching(server, user="by_md5", extensions=["plpgsql"]))
    assert (answer["changed"], answer["version"].split(".")[0]) == (False, major)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"port": 1}, f"This host cannot reach the database postgres on {HOST}:1: connection refused."),
        ({"ca": ""}, "as app_database.tls asks: its certificate does not do: self-signed certificate."),
        ({"owner_password": "wrong"}, "does not take the password of one of the roles by_scram, by_scram."),
        ({"name": "none"}, "There is no database none on "),
        ({"owner": "full"}, " has no connection left."),
        ({"user": "full", "tls": "disable"}, "does not let this host in: no pg_hba.conf entry for host "),
        ({"version": 99}, ", and app_database.version asks for 99."),
        ({"owner": "by_md5"}, "The role by_md5 may not make tables in the database postgres on "),
        ({"extensions": ["none"]}, " does not have the extension none."),
    ],
)
def test_what_keeps_it_from_being_used_is_said(server: Server, change: dict[str, Any], what: str) -> None:
    server.postgres.execute("GRANT CREATE ON SCHEMA public TO by_scram")
    with pytest.raises(PreflightError) as refused:
        reach(reaching(server, **change))
    assert what in refused.value.what
    assert PASSWORD not in "".join(traceback.format_exception(refused.value))


def test_calls_that_ask_no_database_do_not_wait_for_the_client() -> None:
    code = "import slipway.cli, slipway.database.tools, sys; print({'pg8000', 'scramp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
