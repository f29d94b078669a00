"""What the commands of a contract's `migrate` print, as revisions of a database schema. All of it is pure."""

from __future__ import annotations

import re

from slipway.contract import Migrate
from slipway.errors import CommandError

NONE = "none"
"""The revision of a database that has no schema yet."""
UNTOLD = "what the image brings"
"""Stands for pending revisions where the image cannot tell which there are, if any."""


def revisions(text: str, migrate: Migrate) -> list[str]:
    """The revisions in what a command printed, in its order: whole lines where the contract has no `revision`."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not migrate.revision:
        return lines
    matches = (re.search(migrate.revision, line) for line in lines)
    return [match[1] for match in matches if match]


def revision_of(text: str, migrate: Migrate) -> str:
    """The revision that `status` or `head` told."""
    found = revisions(text, migrate)
    return found[-1] if found else NONE


def planned(text: str, code: int, migrate: Migrate) -> list[str]:
    """The pending revisions that `plan` told, which ended with this exit code.

    Raises :class:`CommandError` where the output says that the schema is ahead of the image, or where the exit code
    says that something is pending and nothing tells what: then it may as well have failed.
    """
    command = " ".join(migrate.plan)
    if migrate.ahead and re.search(migrate.ahead, text):
        raise CommandError(
            f"`{command}` says that the schema is ahead of what the image knows.", "Its output is below."
        )
    found = revisions(text, migrate)
    if code and not found:
        raise CommandError(f"`{command}` ended with exit code {code}.", "Its output is below.")
    # A program that tells by its exit code prints other lines as well when nothing is pending.
    return found if code or not migrate.pending_exit else []
