"""SCRAM-SHA-256: the verifier that PostgreSQL keeps of a password, and what a client proves that it knows one with.

A role gets its password as a verifier, so that no statement, and no log of one, has the password. Sources: RFC 5802,
RFC 7677, and PostgreSQL's documentation of `pg_authid.rolpassword`. Passwords are ASCII (`slipway.vault` makes them
so), which SASLprep leaves as they are.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

ITERATIONS = 4096
SALT = 16
"""Bytes."""

_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """What PostgreSQL is told in the place of the password; another one each time, unless the salt is given."""
    salt = secrets.token_bytes(SALT) if salt is None else salt
    salted = salted_password(password, salt, iterations)
    stored = hashlib.sha256(client_key(salted)).digest()
    return f"SCRAM-SHA-256${iterations}:{_text(salt)}${_text(stored)}:{_text(server_key(salted))}"


def matches(password: str, kept: str | None) -> bool:
    """Whether what PostgreSQL keeps is of this password."""
    found = _VERIFIER.fullmatch(kept or "")
    if found is None:
        return False
    return hmac.compare_digest(verifier(password, base64.b64decode(found[2]), int(found[1])), found[0])


def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """What both sides work with."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


def client_key(salted: bytes) -> bytes:
    """What the client proves that it has."""
    return hmac.digest(salted, b"Client Key", "sha256")


def server_key(salted: bytes) -> bytes:
    """What the server proves that it has."""
    return hmac.digest(salted, b"Server Key", "sha256")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
