"""Verifiers of passwords, held against the example of RFC 7677 and against themselves."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from slipway.database import scram

# RFC 7677, section 3: user "user", password "pencil".
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
MESSAGE = (
    b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
)
PROOF = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
SIGNATURE = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_a_verifier_knows_the_client_and_the_server_of_the_rfc() -> None:
    scheme, salted, keys = scram.verifier("pencil", SALT).split("$")
    assert (scheme, salted) == ("SCRAM-SHA-256", "4096:W22ZaJ0SNY7soEsUEjb6gQ==")
    stored, server = (base64.b64decode(key) for key in keys.split(":"))
    client = bytes(a ^ b for a, b in zip(PROOF, hmac.digest(stored, MESSAGE, "sha256"), strict=True))
    assert hashlib.sha256(client).digest() == stored
    assert base64.b64encode(hmac.digest(server, MESSAGE, "sha256")).decode() == SIGNATURE


def test_each_has_a_salt_of_its_own_and_matches_its_password_alone() -> None:
    one, other = scram.verifier("a password"), scram.verifier("a password")
    assert one != other
    assert scram.matches("a password", one)
    assert scram.matches("a password", other)
    assert not scram.matches("another", one)


def test_one_that_is_weaker_than_the_rfc_asks_is_replaced() -> None:
    salted = hashlib.pbkdf2_hmac("sha256", b"a password", SALT, 1000)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    salt, stored_key, server_key = (
        base64.b64encode(part).decode() for part in (SALT, stored, hmac.digest(salted, b"Server Key", "sha256"))
    )
    assert not scram.matches("a password", f"SCRAM-SHA-256$1000:{salt}${stored_key}:{server_key}")


@pytest.mark.parametrize("kept", [None, "", "md5abcdef", "SCRAM-SHA-256$x", "a password"])
def test_what_is_no_verifier_matches_nothing(kept: str | None) -> None:
    assert not scram.matches("a password", kept)
