"""What an environment's vault is to hold: declared, planned, written, and checked; no sentence tells a value."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from slipway import vault
from slipway.errors import PreflightError
from slipway.vault import Declared, Kind, Plan

AT = "2026-01-02T03:04:05+00:00"
OLD = "old-value-0123456789-abcdefghijklmnopq"
WANT = vault.declared(
    {
        "token": "hex32",
        "cookie_key": {"kind": "fernet", "previous": "cookie_key_previous"},
        "smtp_password": {"kind": "given", "note": "The provider's console shows it."},
    }
)
COMMAND = "ansible-playbook -i inventories/shop playbooks/secrets.yml"
FULL = {"token": OLD, "cookie_key": OLD, "smtp_password": OLD}


def turned(have: dict[str, Any], **how: list[str]) -> dict[str, Any]:
    """The vault after a rotation."""
    todo = vault.plan(WANT, have, **how)
    return have | vault.changes(todo, WANT, have, at=AT, reason="was in a ticket")


# --- kinds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hex32", "password", "fernet", "key"])
def test_what_is_made_is_of_its_kind_and_another_one_each_time(kind: Kind) -> None:
    made = {vault.make(kind) for _ in range(20)}
    assert len(made) == 20
    assert all(vault.is_of(kind, one) for one in made)


def test_what_others_give_is_never_made() -> None:
    with pytest.raises(ValueError, match="given"):
        vault.make("given")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("hex32", "0" * 63),
        ("hex32", "g" * 64),
        ("password", "p" * 31),
        ("password", "p" * 40 + "@"),
        ("password", "p" * 40 + "ä"),
        ("fernet", "not base64 at all"),
        ("fernet", base64.urlsafe_b64encode(b"x" * 31).decode()),
        ("fernet", "+" * 43 + "="),
        ("key", "k" * 31),
        ("given", ""),
    ],
)
def test_what_is_not_of_a_kind(kind: Kind, value: str) -> None:
    assert not vault.is_of(kind, value)


# --- declaring --------------------------------------------------------------------------------------------------------


def test_a_secret_is_declared_by_its_kind_or_by_more() -> None:
    assert WANT["token"] == Declared(kind="hex32")
    assert WANT["cookie_key"].previous == "cookie_key_previous"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"token": "hex"}, "app_secrets is wrong: "),
        ({"token": {"kind": "key", "prev": "x"}}, "unknown field `prev`"),
        ([], "app_secrets is wrong: "),
        ({"shop-token": "key"}, "'shop-token', which cannot be the name of a variable"),
        ({"token": {"kind": "key", "previous": "a b"}}, "'a b', which cannot be the name of a variable"),
        ({vault.RETIRED: "key"}, "cannot be the name of a variable"),
        ({"a": {"kind": "key", "previous": "b"}, "b": "key"}, "app_secrets.a.previous is b, which is declared"),
    ],
)
def test_a_declaration_that_is_wrong(data: object, said: str) -> None:
    with pytest.raises(PreflightError) as refused:
        vault.declared(data)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("services", "uses"),
    [
        ("{{ backend_services }}", True),
        ("{{ backend_services | combine({'worker': worker}) }}", True),
        ({"api": {"image": "registry.example/shop/api"}}, False),
        (None, False),
    ],
)
def test_the_bundled_backends_secrets_count_where_it_is_deployed(services: object, uses: bool) -> None:
    assert vault.uses_bundled_backend(services) == uses


# --- planning ---------------------------------------------------------------------------------------------------------

PLANS: dict[str, tuple[dict[str, Any], dict[str, Any], Plan]] = {
    "an empty vault": ({}, {}, Plan(generate=["token", "cookie_key"], missing=["smtp_password"])),
    "a full vault": (FULL, {}, Plan()),
    "an empty value": (FULL | {"token": ""}, {}, Plan(generate=["token"])),
    "a value in another file": (
        {"cookie_key": OLD},
        {"elsewhere": {"token", "smtp_password"}},
        Plan(),
    ),
    "a rotation": (FULL, {"rotate": ["token", "token"]}, Plan(rotate=["token"])),
    "a rotation of what is not there": (
        {"smtp_password": OLD, "cookie_key": OLD},
        {"rotate": ["token"]},
        Plan(generate=["token"]),
    ),
    "a rotation that revokes": (
        FULL,
        {"rotate": ["token"], "revoke": ["token"]},
        Plan(rotate=["token"], revoke=["token"]),
    ),
    "a revocation later": (turned(FULL, rotate=["token"]), {"revoke": ["token"]}, Plan(revoke=["token"])),
    "a revocation again": (turned(FULL, rotate=["token"], revoke=["token"]), {"revoke": ["token"]}, Plan()),
}


@pytest.mark.parametrize(("have", "how", "expected"), PLANS.values(), ids=PLANS)
def test_plan(have: dict[str, Any], how: dict[str, Any], expected: Plan) -> None:
    planned = vault.plan(WANT, have, **how)
    assert planned == expected
    assert planned.changes == bool(expected.generate or expected.rotate or expected.revoke)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            {"rotate": ["tokn"]},
            "This environment declares no secret tokn. Those that it does: cookie_key, smtp_password, token.",
        ),
        (
            {"rotate": ["smtp_password"]},
            "smtp_password is given by others, so no value is made for it. "
            "Get the new one and put it into the vault with `ansible-vault edit`.",
        ),
        (
            {"revoke": ["token"]},
            "No older value of token is known that could be revoked. "
            "Rotate it in the same run: -e rotate=token -e revoke=token.",
        ),
    ],
)
def test_what_cannot_be_rotated_or_revoked(how: dict[str, Any], said: str) -> None:
    with pytest.raises(PreflightError) as refused:
        vault.plan(WANT, FULL, **how)
    assert str(refused.value) == said


def test_what_stands_in_another_file_is_not_rotated_in_the_vault() -> None:
    with pytest.raises(PreflightError, match="token does not stand in the vault"):
        vault.plan(WANT, {}, elsewhere={"token"}, rotate=["token"])


# --- changing ---------------------------------------------------------------------------------------------------------


def test_what_is_generated_leaves_the_rest_alone() -> None:
    have = {"token": OLD}
    fresh = vault.changes(vault.plan(WANT, have), WANT, have, at=AT)
    assert list(fresh) == ["cookie_key"]


def test_a_rotation_keeps_the_value_before_where_the_application_takes_it() -> None:
    after = turned(FULL, rotate=["token", "cookie_key"])
    assert OLD not in (after["token"], after["cookie_key"])
    assert after["cookie_key_previous"] == OLD
    assert "token_previous" not in after


def test_a_rotation_notes_the_older_value_by_a_fingerprint_alone() -> None:
    [note] = turned(FULL, rotate=["token"])[vault.RETIRED]
    assert (note["name"], note["at"], note["revoked"]) == ("token", AT, False)
    assert OLD not in str(note)
    [other] = turned(FULL, rotate=["token"])[vault.RETIRED]
    assert other["fingerprint"] != note["fingerprint"], "nobody can compare two vaults by it"


def test_a_revoked_value_ends_its_overlap() -> None:
    after = turned(turned(FULL, rotate=["cookie_key"]), revoke=["cookie_key"])
    assert after["cookie_key_previous"] == ""
    assert [(one["name"], one["revoked"], one["reason"]) for one in after[vault.RETIRED]] == [
        ("cookie_key", True, "was in a ticket")
    ]


def test_revoking_one_secret_leaves_the_notes_of_another() -> None:
    after = turned(turned(FULL, rotate=["cookie_key", "token"]), revoke=["cookie_key"])
    assert {one["name"]: one["revoked"] for one in after[vault.RETIRED]} == {"cookie_key": True, "token": False}
    assert after["token"]


def test_notes_that_somebody_edited_are_not_lost() -> None:
    with pytest.raises(PreflightError, match="slipway_retired in the vault was edited by hand"):
        vault.retired({vault.RETIRED: [{"nam": "token"}]})


# --- the file ---------------------------------------------------------------------------------------------------------

WRITTEN = """\
---
# Ours.
token: "abc"  # from the old server
pem: |
  -----BEGIN-----
  -----END-----
other: !unsafe "{{ 5 }}"
empty:
"""


def test_what_people_wrote_into_the_vault_stays() -> None:
    edited = vault.edit(WRITTEN, {"token": "new", "added": "x: #y", "empty": "full"})
    assert edited == WRITTEN.replace('"abc"', '"new"').replace("empty:\n", 'empty: "full"\nadded: "x: #y"\n')


def test_a_block_of_text_is_replaced_as_a_whole() -> None:
    assert vault.read(vault.edit(WRITTEN, {"pem": "key"})) == {
        "token": "abc",
        "pem": "key",
        "other": "{{ 5 }}",
        "empty": None,
    }


@pytest.mark.parametrize("text", ["", "---\n# Not filled yet.\n"])
def test_a_vault_that_is_new_says_what_it_is(text: str) -> None:
    assert vault.edit(text, {"token": "1"}) == vault.HEADER + 'token: "1"\n'


def test_a_rotated_vault_can_be_edited_again_and_again() -> None:
    have, text = FULL, vault.edit("", FULL)
    for _ in range(3):
        todo = vault.plan(WANT, have, rotate=["cookie_key", "token"])
        text = vault.edit(text, vault.changes(todo, WANT, have, at=AT))
        have = vault.read(text)
    assert len(vault.retired(have)) == 6
    assert text.count("slipway_retired") == 1


@pytest.mark.parametrize("text", ["- a\n", "just text\n"])
def test_a_vault_that_is_no_mapping(text: str) -> None:
    with pytest.raises(PreflightError, match="no list of names with values"):
        vault.read(text)


def test_a_vault_that_is_no_yaml_is_not_quoted() -> None:
    with pytest.raises(PreflightError) as refused:
        vault.read(f"token: [{OLD}\n")
    assert "The vault is no YAML in line 2." in str(refused.value)
    assert OLD not in str(refused.value)


def test_a_vault_that_cannot_be_changed_without_harm_is_left() -> None:
    with pytest.raises(PreflightError, match="cannot change without harm"):
        vault.edit(f"{{token: {OLD}}}", {"added": "x"})


# --- checking ---------------------------------------------------------------------------------------------------------


def found(values: dict[str, str], have: dict[str, Any] | None = None) -> str:
    past = vault.retired(have or {})
    return " ".join(vault.problems(WANT, values, past, checked=set(WANT), command=COMMAND))


GOOD = {"token": "a" * 64, "cookie_key": vault.make("fernet"), "smtp_password": "x"}


def test_an_environment_with_all_its_secrets_has_no_problem() -> None:
    assert found(GOOD) == ""


def test_what_is_missing_is_named_with_what_to_do() -> None:
    assert found({}) == (
        f"token and cookie_key are missing. Generate them: {COMMAND}. "
        "smtp_password is given by others, and is not there. The provider's console shows it. "
        "Put it into the vault with `ansible-vault edit`."
    )
    assert f"token is missing. Generate it: {COMMAND}." in found(GOOD | {"token": ""})


def test_what_is_not_of_its_kind_is_named_and_not_told() -> None:
    said = found(GOOD | {"token": OLD})
    assert said == (
        f"token is not of its kind hex32: 64 hexadecimal digits. Rotate it ({COMMAND} -e rotate=token), "
        "or declare it as key or given in app_secrets."
    )


def test_a_kind_is_looked_at_only_where_it_is_asked_for() -> None:
    assert vault.problems(WANT, GOOD | {"token": OLD}, [], checked={"cookie_key"}, command=COMMAND) == []


def test_a_revoked_value_that_comes_back_is_named_and_not_told() -> None:
    value = "b" * 64
    have = turned(GOOD | {"token": value}, rotate=["token"], revoke=["token"])
    assert found(GOOD, have) == ""
    assert found(GOOD | {"token": value}, have) == (
        "token has a value that was revoked (was in a ticket) and replaced on 2026-01-02. "
        f"Give it a new one: {COMMAND} -e rotate=token."
    )


def test_a_revoked_value_is_known_under_another_name_too() -> None:
    have = turned(GOOD | {"token": OLD}, rotate=["token"], revoke=["token"])
    assert "smtp_password has a value that was revoked" in found(GOOD | {"smtp_password": OLD}, have)
    assert "cookie_key_previous has a value that was revoked" in found(GOOD | {"cookie_key_previous": OLD}, have)


def test_a_rotated_value_may_come_back_until_it_is_revoked() -> None:
    assert found(GOOD | {"smtp_password": OLD}, turned(GOOD | {"token": OLD}, rotate=["token"])) == ""


# --- shared with another environment ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "there", "shares"),
    [
        (OLD, {OLD}, True),
        (OLD, {f"postgresql://shop:{OLD}@db.example/shop"}, True),
        (OLD, {OLD[:-1]}, False),
        ("secret", {"secret"}, True),
        ("secret", {"a secret of ours"}, False),
        ("shop", {"shop"}, False),
        ("", {""}, False),
    ],
)
def test_a_value_in_another_environment_is_found(value: str, there: set[str], shares: bool) -> None:
    assert vault.shared({"token": value}, {"staging": there}) == ({"token": ["staging"]} if shares else {})


def test_texts_are_found_wherever_they_stand_and_notes_are_none() -> None:
    data = {"a": [{"b": "c"}], "d": {"e": "f"}, "g": 5, vault.RETIRED: [{"name": "x"}]}
    assert list(vault.texts(data)) == ["c", "f"]


# --- what the hosts call it -------------------------------------------------------------------------------------------


def test_the_hosts_names_of_a_value_are_found(services: dict[str, Any], secret: str) -> None:
    path = "/app/config/environments/production.json"
    services["api"]["secret_env"] = {"JWT_SECRET": secret, "OTHER": OLD}
    assert vault.places(services, secret) == [f"api:{path}#auth.jwtSecret", "api:env:JWT_SECRET"]
    services["api"]["config_files"][0]["content"]["database"]["url"] = f"postgresql://shop:{OLD}@db.example/shop"
    assert vault.places(services, OLD) == [f"api:{path}#database.url", "api:env:OTHER"]


# --- opening it -------------------------------------------------------------------------------------------------------


def test_a_program_comes_before_a_file_with_the_password(tmp_path: Path) -> None:
    assert vault.password_source(tmp_path) is None
    (tmp_path / ".secrets").mkdir()
    (tmp_path / vault.PASSWORD).touch()
    assert vault.password_source(tmp_path) == tmp_path / vault.PASSWORD
    (tmp_path / vault.CLIENT).touch()
    assert vault.password_source(tmp_path) == tmp_path / vault.CLIENT


def test_a_path_is_shown_as_people_type_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert vault.shown(tmp_path / "inventories/shop") == "inventories/shop"
    assert vault.shown(Path("/elsewhere/shop")) == "/elsewhere/shop"


@pytest.mark.parametrize(("names", "said"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_names_are_listed_as_people_say_them(names: list[str], said: str) -> None:
    assert vault.listed(names) == said
