"""As much of PostgreSQL's protocol as it takes to ask a server a few questions from where an application will.

An app host has no client of PostgreSQL's, and the application's own tells too little of what is wrong. Source:
PostgreSQL's documentation, chapter "Frontend/Backend Protocol", version 3.0.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from slipway.database import scram

PATIENCE = 5.0
"""Seconds that connecting, and each answer, may take."""
PROTOCOL = 196608
SSL_REQUEST = 80877103
LONGEST = 1 << 20
"""Bytes of one message. A server of something else could claim any length."""

Stage = Literal["connect", "tls", "login", "ask"]
Tls = Literal["verify-full", "verify-ca", "require", "disable"]


class WireError(Exception):
    """What went wrong, and how far it had come. `code` is PostgreSQL's own for it, or empty."""

    def __init__(self, stage: Stage, said: str, code: str = "") -> None:
        super().__init__(said)
        self.stage = stage
        self.said = said
        self.code = code


class Session:
    """A connection that is logged in."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream

    def ask(self, statement: str) -> list[list[str | None]]:
        """The rows of one statement, as text. Raises :class:`WireError`."""
        self._send(b"Q", statement.encode() + b"\0")
        rows: list[list[str | None]] = []
        while True:
            kind, body = self._receive("ask")
            match kind:
                case b"D":
                    rows.append(list(_columns(body)))
                case b"Z":
                    return rows
                case _:
                    continue

    # --- logging in ------------------------------------------------------------------------------------------------

    def log_in(self, *, user: str, password: str, database: str) -> None:
        """Start the session. Raises :class:`WireError`."""
        said = {"user": user, "database": database, "application_name": "slipway preflight"}
        body = b"".join(word.encode() + b"\0" for pair in said.items() for word in pair) + b"\0"
        self._stream.sendall(struct.pack("!II", len(body) + 8, PROTOCOL) + body)
        while True:
            kind, body = self._receive("login")
            if kind == b"R":
                self._authenticate(struct.unpack_from("!I", body)[0], body[4:], user, password)
            elif kind == b"Z":
                return

    def _authenticate(self, how: int, body: bytes, user: str, password: str) -> None:
        match how:
            case 0:
                return
            case 3:
                self._send(b"p", password.encode() + b"\0")
            case 5:
                inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest().encode()
                outer = hashlib.md5(inner + body, usedforsecurity=False).hexdigest()
                self._send(b"p", f"md5{outer}".encode() + b"\0")
            case 10 if b"SCRAM-SHA-256\0" in body:
                self._scram(password)
            case _:
                raise WireError("login", f"it wants to know who comes in a way that is not known here ({how})")

    def _scram(self, password: str) -> None:
        nonce = base64.b64encode(secrets.token_bytes(18)).decode()
        first = f"n=,r={nonce}"
        message = f"n,,{first}".encode()
        self._send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(message)) + message)
        server_first = self._sasl(11).decode()
        said = dict(part.split("=", 1) for part in server_first.split(","))
        if not said["r"].startswith(nonce):
            raise WireError("login", "it answers somebody else")
        salted = scram.salted_password(password, base64.b64decode(said["s"]), int(said["i"]))
        without_proof = f"c=biws,r={said['r']}"
        spoken = f"{first},{server_first},{without_proof}".encode()
        key = scram.client_key(salted)
        signature = hmac.digest(hashlib.sha256(key).digest(), spoken, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        self._send(b"p", f"{without_proof},p={proof}".encode())
        wanted = b"v=" + base64.b64encode(hmac.digest(scram.server_key(salted), spoken, "sha256"))
        if self._sasl(12) != wanted:
            raise WireError("login", "it does not know the password itself")

    def _sasl(self, wanted: int) -> bytes:
        _, body = self._receive("login")
        if struct.unpack_from("!I", body)[0] != wanted:
            raise WireError("login", "it breaks off in the middle of the login")
        return body[4:]

    # --- messages --------------------------------------------------------------------------------------------------

    def _send(self, kind: bytes, body: bytes) -> None:
        self._stream.sendall(kind + struct.pack("!I", len(body) + 4) + body)

    def _receive(self, stage: Stage) -> tuple[bytes, bytes]:
        head = self._exactly(5, stage)
        length = struct.unpack_from("!I", head, 1)[0] - 4
        if not 0 <= length <= LONGEST:
            raise WireError(stage, "what answers there is no PostgreSQL")
        kind, body = head[:1], self._exactly(length, stage)
        if kind == b"E":
            raise _refused(stage, body)
        return kind, body

    def _exactly(self, length: int, stage: Stage) -> bytes:
        got = b""
        while len(got) < length:
            try:
                more = self._stream.recv(length - len(got))
            except OSError as error:
                raise WireError(stage, _reason(error)) from error
            if not more:
                raise WireError(stage, "it closes the connection")
            got += more
        return got


@contextmanager
def session(
    *, host: str, port: int, user: str, password: str, database: str, tls: Tls, ca: str = ""
) -> Iterator[Session]:
    """A session for as long as the block runs. `ca` is PEM; without it those count that all trust.

    Raises :class:`WireError`.
    """
    try:
        stream = socket.create_connection((host, port), timeout=PATIENCE)
    except OSError as error:
        raise WireError("connect", _reason(error)) from error
    with stream:
        if tls == "disable":
            told = Session(stream)
            told.log_in(user=user, password=password, database=database)
            yield told
            return
        with _encrypted(stream, host, tls, ca) as secure:
            told = Session(secure)
            told.log_in(user=user, password=password, database=database)
            yield told


def _encrypted(stream: socket.socket, host: str, tls: Tls, ca: str) -> ssl.SSLSocket:
    stream.sendall(struct.pack("!II", 8, SSL_REQUEST))
    try:
        answer = stream.recv(1)
    except OSError as error:
        raise WireError("tls", _reason(error)) from error
    if answer != b"S":
        raise WireError("tls", "it speaks no TLS" if answer == b"N" else "what answers there is no PostgreSQL")
    context = ssl.create_default_context(cadata=ca or None)
    context.check_hostname = tls == "verify-full"
    if tls == "require":
        context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(stream, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise WireError("tls", f"its certificate does not do: {error.verify_message.rstrip('.')}") from error
    except OSError as error:
        raise WireError("tls", _reason(error)) from error


def _columns(body: bytes) -> Iterator[str | None]:
    at = 2
    for _ in range(struct.unpack_from("!H", body)[0]):
        length = struct.unpack_from("!i", body, at)[0]
        at += 4
        if length < 0:
            yield None
        else:
            yield body[at : at + length].decode()
            at += length


def _refused(stage: Stage, body: bytes) -> WireError:
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return WireError(stage, fields.get(b"M", "it says no"), fields.get(b"C", ""))


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:g} seconds"
    return (error.strerror or str(error)).rstrip(".").lower()
