from __future__ import annotations

import time

import jwt
import pytest
from backend.tokens import ISSUER, InvalidTokenError, mint, subject_of
from backend_support import SECRET


def test_a_token_names_whom_it_was_minted_for() -> None:
    assert subject_of(mint(SECRET, subject="operator", ttl=60), SECRET) == "operator"


def test_a_token_of_the_secret_before_counts_where_that_is_given() -> None:
    old = "the-secret-before-with-32-characters-or-more"
    token = mint(old, subject="operator", ttl=60)
    assert subject_of(token, SECRET, old) == "operator"
    assert subject_of(mint(SECRET, subject="x", ttl=60), SECRET, old) == "x"
    with pytest.raises(InvalidTokenError, match="the token is not valid"):
        subject_of(token, SECRET)
    with pytest.raises(InvalidTokenError, match="the token has expired"):
        subject_of(mint(old, subject="operator", ttl=-60), SECRET, old)


def test_a_token_ends_when_it_said() -> None:
    with pytest.raises(InvalidTokenError, match="the token has expired"):
        subject_of(mint(SECRET, subject="operator", ttl=-60), SECRET)


def claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    # The list below is made when the tests are collected, which may be many minutes before it is used.
    return {"iss": ISSUER, "sub": "x", "iat": now, "exp": now + 3600, **changes}


@pytest.mark.parametrize(
    "token",
    [
        "",
        "no token",
        mint("another-secret-of-more-than-32-characters", subject="x", ttl=60),
        jwt.encode(claims(), "", algorithm="none"),
        jwt.encode(claims(), SECRET * 2, algorithm="HS512"),
        jwt.encode(claims(iss="elsewhere"), SECRET),
        jwt.encode({k: v for k, v in claims().items() if k != "exp"}, SECRET),
        jwt.encode({k: v for k, v in claims().items() if k != "sub"}, SECRET),
    ],
    ids=["empty", "text", "other secret", "unsigned", "other algorithm", "other issuer", "endless", "nobody"],
)
def test_any_other_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidTokenError, match="the token is not valid"):
        subject_of(token, SECRET)
