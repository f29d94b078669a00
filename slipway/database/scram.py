"""SCRAM-SHA-256: the verifier that PostgreSQL keeps of a password.

A role gets its password as a verifier, so that no statement, and no log of one, has the password. scramp makes the keys
in it. Source of its form: PostgreSQL's documentation of `pg_authid.rolpassword`.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets

ITERATIONS = 4096
SALT = 16
"""Bytes, as many as PostgreSQL takes itself; it makes up a salt of that length for a role that does not exist."""

_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """What PostgreSQL is told in the place of the password; another one each time, unless the salt is given."""
    from scramp import ScramMechanism  # noqa: PLC0415 - most calls that look into a database set no password

    salt, stored, server, _ = ScramMechanism("SCRAM-SHA-256").make_auth_info(
        password, iteration_count=iterations, salt=secrets.token_bytes(SALT) if salt is None else salt
    )
    return f"SCRAM-SHA-256${iterations}:{_text(salt)}${_text(stored)}:{_text(server)}"


def matches(password: str, kept: str | None) -> bool:
    """Whether what PostgreSQL keeps is of this password, and as strong as the RFC asks."""
    from scramp import ScramException  # noqa: PLC0415 - as above

    found = _VERIFIER.fullmatch(kept or "")
    if found is None:
        return False
    try:
        made = verifier(password, base64.b64decode(found[2]), int(found[1]))
    except ScramException:
        return False
    return hmac.compare_digest(made, found[0])


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
