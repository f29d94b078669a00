"""The one exception family of the backend, caught once at the edge of the program (`backend.cli`)."""

from __future__ import annotations


class BackendError(Exception):
    """Something an operator has to know: `what` is wrong, and what to `do_next`; each one sentence, no secret."""

    exit_code = 1

    def __init__(self, what: str, do_next: str) -> None:
        super().__init__(f"{what} {do_next}")
        self.what = what
        self.do_next = do_next


class UsageError(BackendError):
    """The call itself is wrong."""

    exit_code = 64


class ConfigError(BackendError):
    """The files under SEMIONT_ROOT, or the environment, cannot be used."""


class DatabaseUnavailableError(BackendError):
    """The database does not answer, or not as the configured user."""


class MigrationError(BackendError):
    """The schema could not be moved; it is as it was before the revision that failed."""


class BackupError(BackendError):
    """A backup could not be made, is none, or could not be restored; the live database is as it was."""
