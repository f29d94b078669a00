"""What migration programs print, read by what a contract says of it."""

from __future__ import annotations

import pytest

from slipway.contract import Migrate
from slipway.errors import CommandError
from slipway.revisions import NONE, planned, revision_of

ALEMBIC = Migrate(revision=r"^(\w+)(?: \(head\))?$")
PRISMA = Migrate(plan=["npx", "status"], revision=r"^(\d{14}_\w+)$", pending_exit=1, ahead="not found locally")
PENDING = """\
2 migrations found in prisma/migrations
Following migrations have not yet been applied:
20240101000000_first
20240202000000_second

To apply migrations in production run prisma migrate deploy.
"""
CURRENT = "2 migrations found in prisma/migrations\n\nDatabase schema is up to date!\n"
AHEAD = """\
The migrations from the database are not found locally in prisma/migrations:
20240303000000_third
"""


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("", NONE),
        ("\n", NONE),
        ("a1b2\n", "a1b2"),
        ("a1b2 (head)\n", "a1b2"),
        ("INFO  [alembic] Context impl.\na1b2 (head)\n", "a1b2"),
    ],
)
def test_a_revision_is_found_among_other_words(text: str, revision: str) -> None:
    assert revision_of(text, ALEMBIC) == revision


def test_without_a_pattern_the_last_line_is_the_revision() -> None:
    assert revision_of(" 0001 \n0002\n\n", Migrate()) == "0002"


@pytest.mark.parametrize(
    ("text", "code", "steps"),
    [
        (PENDING, 1, ["20240101000000_first", "20240202000000_second"]),
        (CURRENT, 0, []),
        # By its exit code nothing is pending, whatever it lists.
        (PENDING, 0, []),
    ],
)
def test_a_program_that_tells_by_its_exit_code(text: str, code: int, steps: list[str]) -> None:
    assert planned(text, code, PRISMA) == steps


def test_a_failure_is_nothing_pending_and_nothing_else_either() -> None:
    with pytest.raises(CommandError, match=r"^`npx status` ended with exit code 1\. Its output is below\.$"):
        planned("Error: P1001: Can't reach database server\n", 1, PRISMA)


@pytest.mark.parametrize("code", [0, 1])
def test_a_schema_that_is_ahead_is_told(code: int) -> None:
    with pytest.raises(CommandError, match="says that the schema is ahead of what the image knows"):
        planned(AHEAD, code, PRISMA)


def test_each_line_is_a_revision_where_the_contract_says_nothing() -> None:
    assert planned("0001\n 0002\n", 0, Migrate(plan=["plan"])) == ["0001", "0002"]
