"""No secret of a release's config files is shown to people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slipway.redact import redact, replace, secrets_in, secrets_of


@pytest.mark.parametrize(
    "document",
    [
        {"auth": {"jwtSecret": "hidden-value"}},
        {"SECRET": "hidden-value"},
        {"database": {"password": "hidden-value"}},
        {"ai": {"openaiApiKey": "hidden-value"}},
        {"tokens": ["hidden-value"]},
        {"credentials": {"deep": [{"down": "hidden-value"}]}},
        {"database": {"url": "postgresql://shop:hidden-value@db:5432/shop"}},
        ["https://user:hidden-value@example/"],
    ],
)
def test_a_secret_is_found_by_its_key_or_as_the_password_of_a_url(document: object) -> None:
    assert "hidden-value" in set(secrets_in(document))


def test_what_is_not_secret_stays_readable() -> None:
    document = {"database": {"url": "sqlite:////app/data/backend.db"}, "port": 4000, "site": "https://shop.example/"}
    assert list(secrets_in(document)) == []


def test_a_password_is_hidden_as_it_is_written_and_as_it_is_meant() -> None:
    found = set(secrets_in({"url": "postgresql://shop:p%40ss-word@db/shop"}))
    assert redact("p%40ss-word and p@ss-word", found) == "[redacted] and [redacted]"


def test_no_tail_of_a_longer_secret_stays() -> None:
    assert redact("secret-and-more", {"secret", "secret-and-more"}) == "[redacted]"


def test_short_values_are_left_alone_because_hiding_them_would_garble_the_text() -> None:
    assert redact("a notable day", {"a", "table"}) == "a notable day"


def test_a_secret_is_hidden_inside_of_json_too() -> None:
    secret = 'quote " backslash \\ ü'
    for text in (json.dumps({"at": secret}), json.dumps({"at": secret}, ensure_ascii=False), f"at {secret}"):
        assert "backslash" not in redact(text, {secret})


def test_a_secret_of_several_lines_is_hidden_line_by_line() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n-----END PRIVATE KEY-----\n"
    log = "".join(f"api-1  | {line}\n" for line in key.splitlines())
    assert "MIIEvQIBADANBgkqhkiG9w0B" not in redact(log, {key})


def test_secrets_are_read_from_every_json_file_of_a_release(tmp_path: Path) -> None:
    folder = tmp_path / "config" / "api" / "app" / "config"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text('{"jwtSecret": "first-secret"}')
    (folder / "b.json").write_text('{"token": "second-secret"}')
    (folder / "broken.json").write_text("{")
    assert secrets_of(tmp_path) == {"first-secret", "second-secret"}


def test_a_folder_without_config_has_no_secrets(tmp_path: Path) -> None:
    assert secrets_of(tmp_path) == set()


def test_a_url_that_cannot_be_read_is_passed_over() -> None:
    assert list(secrets_in({"url": "http://[broken"})) == []


def test_each_secret_can_have_a_mask_of_its_own() -> None:
    assert replace("secret and secret-and-more", {"secret": "[1]", "secret-and-more": "[2]"}) == "[1] and [2]"
