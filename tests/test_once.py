"""SQL files that may run once: what is noted decides what is still to be run."""

from __future__ import annotations

import pytest

from slipway import once
from slipway.errors import CommandError

FILES = ["/sql/001.sql", "/sql/002.sql"]


@pytest.mark.parametrize(
    ("noted", "left"),
    [
        ("", FILES),
        ("done 001.sql\n", FILES[1:]),
        ("done 001.sql\ndone 002.sql\n", []),
        ("done 002.sql\n", FILES[:1]),
    ],
)
def test_what_is_not_noted_is_pending(noted: str, left: list[str]) -> None:
    assert once.pending(once.applied(noted, FILES), FILES) == left


def test_a_file_that_committed_a_part_is_never_run_again() -> None:
    with pytest.raises(CommandError, match=r"^002\.sql committed a part of what it does and then failed"):
        once.applied("done 001.sql\nbegun 002.sql\n", FILES)


def test_a_file_that_the_release_does_not_know_means_that_the_schema_is_ahead() -> None:
    with pytest.raises(CommandError, match=r"^003\.sql was applied to the database, which this release does not know"):
        once.applied("done 001.sql\ndone 003.sql\n", FILES)
