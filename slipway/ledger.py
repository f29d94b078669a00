"""The ledger: append-only JSON lines of what happened to an environment on this host.

One line is one phase of one run. A line is appended in a single write and synced; a line that a crash cut short
is passed over when reading and cannot swallow the next one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from slipway.errors import SlipwayError

Phase = Literal[
    "stage",
    "migrate",
    "activate",
    "return",
    "rollback",
    "recover",
    "stop",
    "maintenance",
    "lease",
    "revoke",
    "backup",
    "drill",
    "restore",
]
SERVING: tuple[Phase, ...] = ("activate", "return", "rollback", "recover", "restore")
"""Phases after which, when they end well, a release serves."""
Result = Literal["good", "failed", "returned"]


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line. `at` is UTC in ISO 8601, `seconds` how long the phase took."""

    at: str = ""
    run: str
    by: str
    phase: Phase
    release: str
    result: Result = "good"
    seconds: float = 0.0
    previous: str = ""
    """The release that served before."""
    images: dict[str, str] = {}
    """Service -> `repository@sha256:…`."""
    fingerprints: dict[str, str] = {}
    """File of the release -> its keyed fingerprint, as the manifest has it."""
    phases: dict[str, float] = {}
    """What the phase consisted of, in its order -> seconds: start, switch, soak, drain, stop."""
    unavailable_ms: int | None = None
    """For how long clients of the edge were not served meanwhile; None where that was not measured."""
    fence: int = 0
    """The fencing number of the lease that the run held."""
    schema_before: str = ""
    schema_after: str = ""
    backup: str = ""
    """The verified backup that was taken before; of a backup, a drill or a restore, that which it is about."""
    data_age: float = 0.0
    """Of a drill or a restore: how old the data was, in seconds."""
    reason: str = ""


class Ledger:
    """The ledger in an environment's folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ledger.jsonl"

    def append(self, entry: Entry) -> None:
        """Write one entry so that it is on disk when this returns."""
        entry.at = datetime.now(UTC).isoformat(timespec="milliseconds")
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            cut_short = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, (b"\n" if cut_short else b"") + msgspec.json.encode(entry) + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)

    def entries(self) -> list[Entry]:
        """All entries, oldest first."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(msgspec.json.decode(line, type=Entry))
            except msgspec.MsgspecError:
                continue
        return found

    @contextmanager
    def phase(self, entry: Entry) -> Iterator[Entry]:
        """Time a phase and append its entry, also when it fails: then with the sentence that says why."""
        began = time.monotonic()
        try:
            yield entry
        except SlipwayError as error:
            entry.result = "failed" if entry.result == "good" else entry.result
            entry.reason = error.what
            raise
        except BaseException as error:
            entry.result = "failed"
            entry.reason = f"Broken off: {type(error).__name__}."
            raise
        finally:
            entry.seconds = round(time.monotonic() - began, 3)
            self._record(entry)

    def _record(self, entry: Entry) -> None:
        try:
            self.append(entry)
        except OSError as error:
            raise SlipwayError(
                f"The phase {entry.phase} ended ({entry.result}) and could not be recorded: {error.strerror}.",
                f"Free some space on the file system of {self._path} and run this again.",
            ) from error

    def good_releases(self) -> list[str]:
        """Ids of the releases that passed their gate and were switched to, newest first, each once.

        One that was good here and was given up because it failed on another host is none.
        """
        good: list[str] = []
        for entry in self.entries():
            if entry.phase in SERVING and entry.result == "good":
                gone = {entry.release, entry.previous} if entry.phase == "return" else {entry.release}
                good = [entry.release, *(release for release in good if release not in gone)]
        return good

    def schema_under(self, release_id: str) -> str:
        """The schema revision that a release served on last, or an empty string."""
        for entry in reversed(self.entries()):
            if entry.release == release_id and entry.phase in SERVING and entry.result == "good":
                return entry.schema_after
        return ""

    def outgrown(self, release_id: str) -> bool:
        """Whether a rollback left the release on a schema other than its own, which its image may not know."""
        served = [
            entry
            for entry in self.entries()
            if entry.release == release_id and entry.phase in SERVING and entry.result == "good"
        ]
        return bool(served) and served[-1].phase == "rollback" and served[0].schema_after != served[-1].schema_after

    def schema(self) -> str:
        """The schema revision that the last migration left, or an empty string."""
        for entry in reversed(self.entries()):
            if entry.schema_after:
                return entry.schema_after
        return ""
