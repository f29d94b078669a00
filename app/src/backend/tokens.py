"""Bearer tokens: JWTs signed with auth.jwtSecret (HS256). Those of auth.previousJwtSecret count until it is gone."""

from __future__ import annotations

import time
from typing import Final

import jwt

ISSUER: Final = "semiont-backend"
LEEWAY: Final = 5
"""Seconds that the clocks of two hosts may differ."""


class InvalidTokenError(Exception):
    """The token is not one of ours, or no longer; the message says which and holds nothing of the token."""


def mint(secret: str, *, subject: str, ttl: int) -> str:
    """A token for `subject` that ends `ttl` seconds from now."""
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": subject, "iat": now, "exp": now + ttl}
    return jwt.encode(claims, secret, algorithm="HS256")


def subject_of(token: str, secret: str, *older: str) -> str:
    """The subject of a token that one of the secrets has signed; raises InvalidTokenError."""
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],  # stated, never taken from the token
            issuer=ISSUER,
            leeway=LEEWAY,
            options={"require": ["exp", "iat", "iss", "sub"]},
        )
    except jwt.InvalidSignatureError:
        if older:
            return subject_of(token, *older)
        raise InvalidTokenError("the token is not valid") from None
    except jwt.ExpiredSignatureError:
        raise InvalidTokenError("the token has expired") from None
    except jwt.InvalidTokenError:
        raise InvalidTokenError("the token is not valid") from None
    return str(claims["sub"])
