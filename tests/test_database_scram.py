"""Verifiers of passwords, held against the example of RFC 7677 and against themselves."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from slipway.database import scram

# RFC 7677, section 3: user "user", password "pencil".
SALT, ITERATIONS = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096
MESSAGE = (
    b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
)
PROOF = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SIGNATURE = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_the_keys_are_those_of_the_rfc() -> None:
    salted = scram.salted_password("pencil", SALT, ITERATIONS)
    key = scram.client_key(salted)
    signature = hmac.digest(hashlib.sha256(key).digest(), MESSAGE, "sha256")
    assert base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode() == PROOF
    assert base64.b64encode(hmac.digest(scram.server_key(salted), MESSAGE, "sha256")).decode() == SIGNATURE


def test_a_verifier_has_the_form_that_postgresql_keeps() -> None:
    kept = scram.verifier("pencil", SALT)
    head, stored, server = kept.split("$")[0], *kept.split("$")[2].split(":")
    assert head == "SCRAM-SHA-256"
    assert kept.split("$")[1] == "4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    assert len(base64.b64decode(stored)) == len(base64.b64decode(server)) == 32


def test_each_has_a_salt_of_its_own_and_matches_its_password_alone() -> None:
    one, other = scram.verifier("a password"), scram.verifier("a password")
    assert one != other
    assert scram.matches("a password", one)
    assert scram.matches("a password", other)
    assert not scram.matches("another", one)


@pytest.mark.parametrize("kept", [None, "", "md5abcdef", "SCRAM-SHA-256$x", "a password"])
def test_what_is_no_verifier_matches_nothing(kept: str | None) -> None:
    assert not scram.matches("a password", kept)
