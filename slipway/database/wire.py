"""A session with a PostgreSQL server, to ask it a few questions from where an application will.

An app host has no client of PostgreSQL's, and the application's own tells too little of what is wrong. pg8000 speaks
the protocol, but for the request for TLS that comes before it, of which pg8000 says too little as well: a mail server
"refuses SSL" like a PostgreSQL without TLS, and a time limit is the same in the handshake as in the login. And where it
asks for no TLS, it takes any greeting for the beginning of a message, and waits for the rest until its time is over.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal

import pg8000.native
from scramp import ScramException

PATIENCE = 5.0
"""Seconds that connecting, and each answer, may take."""
SSL_REQUEST = struct.pack("!II", 8, 80877103)
"""Source: PostgreSQL's documentation, "Message Formats"."""

Stage = Literal["connect", "tls", "login", "ask"]
Tls = Literal["verify-full", "verify-ca", "require", "disable"]

# What pg8000 raises of its own, and what goes through it where the other side breaks off or is no PostgreSQL.
_FAILURES = (pg8000.native.Error, ScramException, OSError, KeyError, ValueError, struct.error)


class WireError(Exception):
    """What went wrong, and how far it had come. `code` is PostgreSQL's own for it, or empty."""

    def __init__(self, stage: Stage, said: str, code: str = "") -> None:
        super().__init__(said)
        self.stage = stage
        self.said = said
        self.code = code


class Session:
    """A connection that is logged in."""

    def __init__(self, connection: pg8000.native.Connection) -> None:
        self._connection = connection

    def ask(self, statement: str) -> list[list[Any]]:
        """The rows of one statement. Raises :class:`WireError`."""
        try:
            return self._connection.run(statement) or []
        except _FAILURES as error:
            raise _failed("ask", error) from error


@contextmanager
def session(
    *, host: str, port: int, user: str, password: str, database: str, tls: Tls, ca: str = ""
) -> Iterator[Session]:
    """A session for as long as the block runs. `ca` is PEM; without it those count that all trust.

    Raises :class:`WireError`.
    """
    with ExitStack() as opened:
        stream = opened.enter_context(_connected(host, port))
        offered = _offers_tls(stream, "login" if tls == "disable" else "tls")
        if tls != "disable":
            if not offered:
                raise WireError("tls", "it speaks no TLS")
            stream = opened.enter_context(_encrypted(stream, host, tls, ca))
        elif offered:
            # It waits for the handshake now, so without TLS it takes another connection.
            stream.close()
            stream = opened.enter_context(_connected(host, port))
        connection = _logged_in(stream, user=user, password=password, database=database)
        try:
            yield Session(connection)
        finally:
            with suppress(*_FAILURES):
                connection.close()


def _connected(host: str, port: int) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=PATIENCE)
    except OSError as error:
        raise _failed("connect", error) from error


def _offers_tls(stream: socket.socket, stage: Stage) -> bool:
    """Whether it speaks TLS; anything but PostgreSQL gives another answer than one of two letters, and no more."""
    try:
        stream.sendall(SSL_REQUEST)
        answer = stream.recv(2)
    except OSError as error:
        raise _failed(stage, error) from error
    if answer not in {b"S", b"N"}:
        raise WireError(stage, "what answers there is no PostgreSQL")
    return answer == b"S"


def _encrypted(stream: socket.socket, host: str, tls: Tls, ca: str) -> ssl.SSLSocket:
    context = ssl.create_default_context(cadata=ca or None)
    context.check_hostname = tls == "verify-full"
    if tls == "require":
        context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(stream, server_hostname=host)
    except OSError as error:
        raise _failed("tls", error) from error


def _logged_in(stream: socket.socket, *, user: str, password: str, database: str) -> pg8000.native.Connection:
    try:
        return pg8000.native.Connection(
            user=user,
            password=password,
            database=database,
            application_name="slipway preflight",
            sock=stream,
            ssl_context=False,
        )
    except _FAILURES as error:
        raise _failed("login", error) from error


def _failed(stage: Stage, error: BaseException) -> WireError:
    """What is at the bottom of it: after an error pg8000 takes its leave, and where that fails, raises that instead."""
    chain = [error]
    while beneath := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(beneath)
    code = ""
    match next((one for one in reversed(chain) if isinstance(one, (pg8000.native.DatabaseError, OSError))), error):
        case pg8000.native.DatabaseError(args=[dict(fields)]):
            said, code = fields.get("M", "it says no"), fields.get("C", "")
        case ssl.SSLCertVerificationError(verify_message=why):
            said = f"its certificate does not do: {why}"
        case TimeoutError():
            said = f"no answer within {PATIENCE:g} seconds"
        case OSError() as broken:
            said = (broken.strerror or str(broken)).lower()
        case pg8000.native.InterfaceError(args=["network error"]):
            said = "it closes the connection"
        case pg8000.native.InterfaceError(args=[why]):
            said = why
        case ScramException(args=[why]):
            said = f"the login by SCRAM fails: {why}"
        case _:
            said = "what answers there is no PostgreSQL"
    return WireError(stage, said.rstrip("."), code)
