"""Backups of an environment's database on its host, each one taken and verified before a migration.

    /srv/slipway/<name>/backups/                    0700 root
        20261124T184005123Z-0002/                   when, and the revision that the schema was at
            backup                                  0400, as the image's own command wrote it
            backup.json                             0400, what it is: `Backup`

A backup is written under a temporary name, synced, verified and renamed, so one that is there is whole and has been
restored once.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from slipway.errors import PreflightError, SlipwayError

BACKUP_FILE = "backup"
ABOUT_FILE = "backup.json"
FULL = 1024**2
"""Bytes left on a file system that was full when a program could not write on: less than it writes at once."""

_TAKING = ".taking-"


class Backup(msgspec.Struct, kw_only=True, frozen=True):
    """What a backup is. `at` is UTC in ISO 8601, `size` bytes, `seconds` how long taking and verifying it took."""

    id: str
    at: str
    release: str
    """The release that was current."""
    revision: str
    """The revision that the schema was at."""
    service: str
    size: int
    sha256: str
    rows: dict[str, int]
    """Table -> rows, counted in a database that it was restored to."""
    seconds: float


class Difference(NamedTuple):
    """A table that holds other rows than it did; None where there is no such table."""

    table: str
    then: int | None
    now: int | None

    def __str__(self) -> str:
        then, now = (number if number is not None else "not there" for number in (self.then, self.now))
        return f"{self.table}: {then} then, {now} now"


class Backups:
    """The backups in an environment's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "backups"

    def take(
        self,
        *,
        release: str,
        revision: str,
        service: str,
        create: Callable[[BinaryIO], None],
        verify: Callable[[BinaryIO], dict[str, int]],
    ) -> Backup:
        """Take a backup and keep it when it has been verified; whatever fails, nothing is left behind.

        `create` writes it, `verify` reads it, restores it to a scratch database and counts the rows there. Raises
        :class:`PreflightError` when the disk is full, and what the two raise.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.sweep()
        began = time.monotonic()
        at = datetime.now(UTC)
        backup_id = f"{at:%Y%m%dT%H%M%S}{at.microsecond // 1000:03}Z-{in_a_name(revision)}"
        taking = self._folder / f"{_TAKING}{backup_id}"
        with self._cleared_away(taking):
            taking.mkdir(mode=0o700)
            with _written(taking / BACKUP_FILE) as file:
                create(file)
            with (taking / BACKUP_FILE).open("rb") as file:
                rows = verify(file)
            backup = Backup(
                id=backup_id,
                at=at.isoformat(timespec="milliseconds"),
                release=release,
                revision=revision,
                service=service,
                size=(taking / BACKUP_FILE).stat().st_size,
                sha256=_sha256(taking / BACKUP_FILE),
                rows=rows,
                seconds=round(time.monotonic() - began, 3),
            )
            self._describe(taking, backup)
            taking.rename(self._folder / backup_id)
        for folder in (self._folder, self._folder.parent):
            _sync_folder(folder)
        return backup

    @contextmanager
    def received(self, backup: Backup) -> Iterator[BinaryIO]:
        """A file to write a backup into that comes from elsewhere; it is kept when it is what was taken, byte for byte.

        Raises :class:`SlipwayError` when it is not.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.sweep()
        receiving = self._folder / f"{_TAKING}{backup.id}"
        with self._cleared_away(receiving):
            receiving.mkdir(mode=0o700)
            with _written(receiving / BACKUP_FILE) as file:
                yield file
            if _sha256(receiving / BACKUP_FILE) != backup.sha256:
                raise SlipwayError(
                    f"The backup {backup.id} is damaged: what came from the archive is not what was taken.",
                    "Choose another one.",
                )
            self._describe(receiving, backup)
            self.remove(backup)
            receiving.rename(self._folder / backup.id)

    def list(self) -> list[Backup]:
        """All backups, newest first."""
        found = []
        for path in sorted(self._folder.glob(f"[!.]*/{ABOUT_FILE}"), reverse=True):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Backup))
            except (OSError, msgspec.MsgspecError):
                # Damaged or of another version of the kit: it cannot be restored by this one.
                continue
        return found

    def find(self, service: str, revision: str) -> Backup | None:
        """The newest backup of a service that was taken when the schema was at `revision`."""
        of_it = (backup for backup in self.list() if (backup.service, backup.revision) == (service, revision))
        return next(of_it, None)

    @contextmanager
    def open(self, backup: Backup) -> Iterator[BinaryIO]:
        """The backup as a file. Raises :class:`SlipwayError` when it is not, byte for byte, what was taken."""
        path = self._folder / backup.id / BACKUP_FILE
        try:
            whole = _sha256(path) == backup.sha256
        except OSError as error:
            raise SlipwayError(
                f"The backup {backup.id} cannot be read: {error.strerror}.",
                "Choose another one, or put the file back from where the host itself is backed up.",
            ) from error
        if not whole:
            raise SlipwayError(
                f"The backup {backup.id} is damaged: its file {path} is not what was taken.",
                "Choose another one, or put the file back from where the host itself is backed up.",
            )
        with path.open("rb") as file:
            yield file

    def prune(self, keep: Callable[[Backup], bool]) -> Sequence[Backup]:
        """Remove the backups that `keep` does not want, and return them."""
        gone = [backup for backup in self.list() if not keep(backup)]
        for backup in gone:
            self.remove(backup)
        return gone

    def remove(self, backup: Backup) -> None:
        """Remove a backup; one that is not there is no error."""
        path = self._folder / backup.id
        if path.exists():
            # In one step, so that a killed call leaves no half of it.
            path = path.rename(self._folder / f"{_TAKING}{backup.id}")
            _sync_folder(self._folder)
            shutil.rmtree(path)

    def sweep(self) -> None:
        """Remove what a killed call left half-written or half-removed."""
        for left in self._folder.glob(f"{_TAKING}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _describe(self, folder: Path, backup: Backup) -> None:
        with _written(folder / ABOUT_FILE) as file:
            file.write(msgspec.json.format(msgspec.json.encode(backup), indent=2) + b"\n")
        _sync_folder(folder)

    @contextmanager
    def _cleared_away(self, taking: Path) -> Iterator[None]:
        """Remove `taking` when what is done here fails, and say so where the reason is a full disk."""
        try:
            yield
        except BaseException as error:
            full = _is_full(error, self._folder)
            shutil.rmtree(taking, ignore_errors=True)
            if full:
                raise PreflightError(
                    f"The disk is full: the backup could not be written to {self._folder}.",
                    "Free some space on that file system and run the play again.",
                ) from error
            raise


def compare(then: Mapping[str, int], now: Mapping[str, int]) -> list[Difference]:
    """Which tables hold other numbers of rows now than they did then, by name."""
    found = (Difference(table, then.get(table), now.get(table)) for table in sorted({*then, *now}))
    return [difference for difference in found if difference.then != difference.now]


def age(backup: Backup, now: datetime | None = None) -> str:
    """How old a backup is, in words: `3 hours`."""
    return span(((now or datetime.now(UTC)) - datetime.fromisoformat(backup.at)).total_seconds())


def span(seconds: float) -> str:
    """A length of time in words: `3 hours`."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {unit}{'s' * (number > 1)}"
    return "less than a minute"


def _is_full(error: BaseException, folder: Path) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # A program that could not write on says so in words of its own.
    return isinstance(error, SlipwayError) and is_full(folder)


def is_full(folder: Path) -> bool:
    """Whether the file system of a folder has no room for what a program writes at once."""
    disk = os.statvfs(folder)
    return disk.f_bfree * disk.f_frsize < FULL


def in_a_name(revision: str) -> str:
    """The revision as far as it can stand in a folder's name; what it is stands in `backup.json`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", revision)[:64]


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    with os.fdopen(handle, "wb") as file:
        yield file
        file.flush()
        os.fsync(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
