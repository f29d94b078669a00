"""Config files that are documents: what was put in comes out again, for the kit and for a shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slipway import documents

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NAMES = st.from_regex(documents.ENV_NAME, fullmatch=True)


@example({"A": "=", "B": "^a", "C": "Zm9vYmFy==", "D": "'"})
@given(st.dictionaries(NAMES, TEXT))
def test_an_env_file_is_read_back_as_it_was_written(variables: dict[str, str]) -> None:
    assert documents.read("/app/.env", documents.lay_out("/app/.env", variables)) == variables


@given(st.recursive(st.none() | st.booleans() | TEXT, lambda inner: st.dictionaries(TEXT, inner)))
def test_a_json_file_is_read_back_as_it_was_written(value: object) -> None:
    assert documents.read("/a.json", documents.lay_out("/a.json", {"at": value})) == {"at": value}


VALUES = {
    "PLAIN": "postgres://shop@db:5432/shop",
    "EMPTY": "",
    "SPACES": " a  b ",
    "QUOTES": 'it\'s "so"',
    "DOLLAR": "$HOME ${HOME} $$",
    "HASH": "a #b",
    "KEY": "Zm9vYmFy==",
    "EQUAL": "=",
    "LINES": "first\nsecond\r\n\tthird\\n",
    "UNICODE": "ü\u2028😀",
    "TICKS": "`id` $(id) \\ ! * ~",
}


def test_a_shell_reads_it_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "shop.env"
    file.write_bytes(documents.lay_out("shop.env", VALUES).encode())
    script = f"set -a; . {file}; env -0"
    done = subprocess.run(["sh", "-c", script], env={"HOME": "/nowhere"}, capture_output=True, check=True)
    found = dict(entry.partition(b"=")[::2] for entry in done.stdout.split(b"\0") if entry)
    assert {name: found[name.encode()].decode() for name in VALUES} == VALUES


def test_what_needs_no_quotes_has_none() -> None:
    assert documents.lay_out(".env", {"A": "postgres://shop@db:5432/shop", "B": True, "C": 5}) == (
        "A=postgres://shop@db:5432/shop\nB=true\nC=5\n"
    )


@pytest.mark.parametrize("text", ["A=$B\n", "export A=1\n", "A = 1\n", "A=1\n\nB=2\n", 'A="b"\n'])
def test_a_file_of_another_hand_is_no_document(text: str) -> None:
    assert documents.read("/.env", text) is None


@pytest.mark.parametrize("text", ["", "5", '"text"', "{", "SELECT 1;"])
def test_only_objects_and_lists_are_documents(text: str) -> None:
    assert documents.read("/a.json", text) is None
