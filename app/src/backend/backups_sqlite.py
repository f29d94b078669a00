"""Backups of an SQLite file, by SQLite's online backup API.

A backup is itself an SQLite file. Both ways are one transaction of the live file, in its write-ahead log: a backup is a
snapshot that writers neither wait for nor disturb, and a restore is seen whole by a process that serves meanwhile, or,
when it is killed, not at all.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from backend.backups import VERSION_TABLE, Rows, failed, not_a_backup, ours
from backend.database import LOCK_TIMEOUT
from backend.errors import BackupError
from backend.locks import lock_path

PAGES: Final = 256
"""Pages that are copied at once: a signal is looked at in between."""
BUSY_WAIT: Final = 30.0
"""Seconds that a restore waits for writers of the live file."""
MAGIC: Final = b"SQLite format 3\0"


class SqliteBackups:
    """Backups of the database in the file `path`. What is on its way lies beside it: /tmp may be small, or memory."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    def create(self, out: BinaryIO) -> None:
        """As in Backups. An empty backup where there is no file yet, and none is made."""
        with self._folder() as folder:
            file = folder / "backup.db"
            with self._told("backed up"), closing(_open(file, "rwc")) as copy, closing(self._live()) as live:
                live.execute("BEGIN")
                live.execute("SELECT count(*) FROM sqlite_schema")  # from here on it sees one state
                live.backup(copy, pages=PAGES, progress=_look_up, sleep=0)
                # One file, without a log beside it, that can be read from anywhere.
                copy.execute("PRAGMA journal_mode = DELETE")
            with file.open("rb") as copied:
                shutil.copyfileobj(copied, out)
            out.flush()

    def verify(self, backup: BinaryIO) -> Rows:
        """As in Backups."""
        with self._received(backup) as (_, rows):
            return rows

    def status(self, backup: BinaryIO) -> str:
        """As in Backups."""
        with self._received(backup) as (database, rows):
            found = database.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() if rows else None  # noqa: S608 - a constant
            return str(found[0]) if found else ""

    def count(self) -> Rows:
        """As in Backups."""
        with self._told("counted"), closing(self._live()) as live:
            live.execute("BEGIN")
            return _count(live)

    def restore(self, backup: BinaryIO) -> None:
        """As in Backups. A process that serves goes on, and sees the restored state with its next transaction."""
        with self._received(backup) as (source, rows), self._alone():
            if not rows:
                raise not_a_backup("it is empty")
            with self._told("replaced"), closing(_open(self._path, "rwc")) as live:
                live.execute("PRAGMA journal_mode = WAL")
                source.backup(live, pages=PAGES, progress=_Deadline(BUSY_WAIT), sleep=0.05)

    def _live(self) -> sqlite3.Connection:
        if self._path.exists():
            return _open(self._path, "rw")
        empty = sqlite3.connect(":memory:", isolation_level=None)
        empty.execute("PRAGMA user_version = 0")  # writes a header, without which a copy has no byte
        return empty

    @contextmanager
    def _received(self, backup: BinaryIO) -> Iterator[tuple[sqlite3.Connection, Rows]]:
        """The backup, checked, as a database of its own, and its rows; removed at the end."""
        with self._folder() as folder:
            file = folder / "backup.db"
            try:
                with file.open("xb") as received:
                    shutil.copyfileobj(backup, received)
            except OSError as error:
                raise failed("The backup cannot be laid down beside the database", error) from None
            try:
                with closing(_open(file, "ro")) as database:
                    _check(database, file)
                    yield database, ours(_count(database))
            except sqlite3.DatabaseError as error:
                raise not_a_backup(str(error)) from None

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A folder beside the live file, removed at the end; what a killed process left there is removed first."""
        parent = self._path.parent
        prefix = f".{self._path.name}.backup-"
        try:
            with _locked(parent):  # a new folder is not taken for a left one before its own lock is held
                for left in parent.glob(f"{prefix}*"):
                    _remove_unless_locked(left)
                folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
                held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
                fcntl.flock(held, fcntl.LOCK_EX)
        except OSError as error:
            raise BackupError(
                f"A folder for the backup cannot be made in {parent}: {error.strerror}.",
                "Give this process a directory for its database that it can write to.",
            ) from None
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep migrations away. They hold this lock for as long as they run."""
        handle = os.open(lock_path(self._path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BackupError(
                    "A migration of this database runs.", "Wait for it to end, or end it, and run this again."
                ) from None
            yield
        finally:
            os.close(handle)

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise BackupError(
                f"The database {self._path} cannot be {done}: {error}.",
                "Check its file and the space on its volume. A live file that is broken has to be moved away, with "
                "those that end in -wal and -shm, while nothing serves; then a backup can be restored.",
            ) from None


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=LOCK_TIMEOUT)


def _look_up(_status: int, _remaining: int, _total: int) -> None:
    """Python handles a signal when it runs a line of its own, so between two steps of a copy it is given one."""


class _Deadline:
    """Called between two steps; raises when a writer has not let the copy begin in time."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._seconds = seconds

    def __call__(self, status: int, _remaining: int, _total: int) -> None:
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} and time.monotonic() > self._end:
            raise sqlite3.OperationalError(f"another process has been writing to it for {self._seconds:g} seconds")


def _check(database: sqlite3.Connection, file: Path) -> None:
    with file.open("rb") as content:
        if content.read(len(MAGIC)) != MAGIC:
            raise not_a_backup("it does not begin like an SQLite file")
    pages, size = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    if pages * size != file.stat().st_size:
        raise not_a_backup(f"it has {file.stat().st_size} bytes where {pages * size} belong")
    found = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise not_a_backup(str(found).splitlines()[-1].rstrip("."))
    if database.execute("PRAGMA foreign_key_check").fetchone() is not None:
        raise not_a_backup("a row in it points to nothing")


def _count(database: sqlite3.Connection) -> Rows:
    query = (
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    tables = [str(name) for (name,) in database.execute(query)]
    quoted = {name: name.replace('"', '""') for name in tables}
    return {name: int(database.execute(f'SELECT count(*) FROM "{quoted[name]}"').fetchone()[0]) for name in tables}  # noqa: S608 - quoted


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_unless_locked(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # whose process still runs
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)
