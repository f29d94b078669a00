"""What a release would change, as an operator reads it before a deploy: line by line, and without a secret."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slipway.preview import Page, Side, differences

SECRETS = ["old-secret-value", "new-secret-value"]


def side(release: str = "0123456789abcdef", secret_env: tuple[str, ...] = (), **documents: Any) -> Side:
    pages = {f"{name}.json": Page("mode 0440, owner 0:0", document) for name, document in documents.items()}
    return Side(release=release, project=f"shop-{release[:8]}", pages=pages, secret_env=frozenset(secret_env))


def only(before: Side | None, after: Side) -> dict[str, str]:
    [found] = differences(before, after)
    assert not [secret for secret in SECRETS if secret in json.dumps(found)]
    return found


def changed(found: dict[str, str]) -> tuple[list[str], list[str]]:
    """The lines that only one side has."""
    before, after = found["before"].splitlines(), found["after"].splitlines()
    return [line.strip() for line in before if line not in after], [
        line.strip() for line in after if line not in before
    ]


def test_files_that_are_the_same_are_not_shown() -> None:
    assert differences(side(app={"a": 1}), side(app={"a": 1})) == []


def test_a_changed_value_is_one_line_on_each_side() -> None:
    found = only(side("1" * 16, app={"port": 1, "site": "x"}), side("2" * 16, app={"port": 2, "site": "x"}))
    assert changed(found) == (['"port": 1,'], ['"port": 2,'])
    assert (found["before_header"], found["after_header"]) == (
        "app.json (1111111111111111)",
        "app.json (2222222222222222)",
    )


def test_a_file_that_comes_and_one_that_goes() -> None:
    found = only(None, side(app={"a": 1}))
    assert (found["before"], found["before_header"]) == ("", "app.json (absent)")
    found = only(side(app={"a": 1}), side())
    assert (found["after"], found["after_header"]) == ("", "app.json (absent)")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"jwtSecret": "old-secret-value"}, {"jwtSecret": "new-secret-value"}),
        (
            {"database": "postgresql://shop:old-secret-value@db/x"},
            {"database": "postgresql://shop:new-secret-value@db/x"},
        ),
        ({"tokens": ["old-secret-value"]}, {"tokens": ["new-secret-value"]}),
        ({"auth": {"deep": {"down": "old-secret-value"}}}, {"auth": {"deep": {"down": "new-secret-value"}}}),
        ({"password": 12345678}, {"password": 87654321}),
    ],
)
def test_a_secret_that_changes_shows_as_changed_and_not_as_what_it_is(before: Any, after: Any) -> None:
    gone, come = changed(only(side(app=before), side(app=after)))
    assert len(gone) == len(come) == 1
    assert "[redacted 1]" in gone[0]
    assert "[redacted 2]" in come[0]


def test_a_secret_that_stays_has_the_same_number_on_both_sides() -> None:
    found = only(
        side(app={"jwtSecret": "old-secret-value", "port": 1}), side(app={"jwtSecret": "old-secret-value", "port": 2})
    )
    assert changed(found) == (['"port": 1'], ['"port": 2'])
    assert found["before"].count("[redacted 1]") == found["after"].count("[redacted 1]") == 1


def test_a_secret_is_masked_wherever_else_it_stands() -> None:
    before = side(app={"jwtSecret": "old-secret-value", "note": "it is old-secret-value"})
    assert "it is [redacted 1]" in only(before, side(app={}))["before"]


def test_a_secret_of_the_environment_is_masked_whatever_it_is_called() -> None:
    compose = {"services": {"api": {"environment": {"PLAIN": "old-secret-value", "PRICE": "5"}}}}
    found = only(None, side(secret_env=("PLAIN",), compose=compose))
    assert '"PLAIN": "[redacted 1]"' in found["after"]
    assert '"PRICE": "5"' in found["after"]


def test_a_short_secret_is_masked_under_its_key_and_garbles_nothing_else() -> None:
    found = only(None, side(app={"pin_secret": "abc", "url": "https://shop:abc@x/abc", "note": "abcd"}))
    assert json.loads(found["after"].partition("\n")[2]) == {
        "pin_secret": "[redacted 1]",
        "url": "https://shop:[redacted 1]@x/abc",
        "note": "abcd",
    }


def test_what_tells_nothing_is_not_masked() -> None:
    found = only(None, side(app={"authEnabled": True, "token": None, "secret": ""}))
    assert "redacted" not in found["after"]


def test_the_id_of_the_release_itself_is_no_difference() -> None:
    first, second = "1" * 16, "2" * 16
    documents = [{"name": f"shop-{release[:8]}", "label": release} for release in (first, second)]
    assert differences(side(first, app=documents[0]), side(second, app=documents[1])) == []


def test_a_file_that_is_opened_to_more_readers_shows() -> None:
    before, after = side(), side()
    before.pages["a.json"] = Page("mode 0400, owner 0:0", {})
    after.pages["a.json"] = Page("mode 0444, owner 0:0", {})
    assert changed(only(before, after)) == (["mode 0400, owner 0:0"], ["mode 0444, owner 0:0"])
