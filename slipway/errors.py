"""The one exception family of the engine.

Every error an operator can meet is a :class:`SlipwayError`: one sentence on what is wrong, one on what to do
next, and the exit code that a script can act on. The edge of the program (`slipway.cli`) catches it once.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every `slipway` call."""

    OK = 0
    """As declared."""
    ERROR = 1
    """It could not be done; nothing was changed."""
    UNHEALTHY = 2
    """Drift, unhealthy, or failed and returned to the release before."""
    USAGE = 64
    """The call itself is wrong."""


class SlipwayError(Exception):
    """Something an operator has to know.

    `what` and `do_next` are whole sentences; `details` is output to show below them (last log lines, a
    migration's output), never with a secret in it. `serves` is the release that serves now, empty for none, where it
    may be another one than before.
    """

    exit: Exit = Exit.ERROR
    serves: str | None = None

    def __init__(self, what: str, do_next: str, *, details: str = "") -> None:
        super().__init__(f"{what} {do_next}")
        self.what = what
        self.do_next = do_next
        self.details = details


class UsageError(SlipwayError):
    """The call or the request is not of the form that the engine takes."""

    exit = Exit.USAGE


class PreflightError(SlipwayError):
    """A deploy cannot start; nothing was touched."""


class UnhealthyError(SlipwayError):
    """What runs is not what was declared, or a release failed and was taken back."""

    exit = Exit.UNHEALTHY


class CommandError(SlipwayError):
    """A command in a one-off container ended with an exit code other than 0.

    `code` is that exit code, or None where the command did not come to its end, and `said` what it printed to stdout,
    with any secret that is in it.
    """

    code: int | None = None
    said: str = ""
