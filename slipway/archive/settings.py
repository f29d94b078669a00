"""What an environment's host knows of its archive.

/srv/slipway/<name>/archive/    0700 root
    archive.json                where it is, and what is kept; no secret
    password, ssh_key, …        0400, what opens it
    outgoing/                   what a backup that is under way is made of
    lock                        held by the kernel for the length of one backup or drill
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from slipway.archive.restic import Restic, secret_files, shown
from slipway.archive.target import Target, problems
from slipway.backups import span
from slipway.errors import PreflightError, UsageError
from slipway.ledger import Entry
from slipway.schedule import Day, Job, settle
from slipway.store import ARCHIVE_FILE, ROOT, Store, hold

FOLDER, SETTINGS_FILE = ARCHIVE_FILE.split("/")
KINDS = ("backup", "drill")
"""Of jobs."""
PROGRAM = "/usr/local/bin/slipway"
WAIT = 3600
"""Seconds that a job waits for a deploy to end."""
FUTURE = 3600.0
"""Seconds by which a backup may be younger than the clock says."""
KEEP = {"last": 3, "daily": 7, "weekly": 5, "monthly": 12}
SPANS = frozenset({"last", "hourly", "daily", "weekly", "monthly", "yearly"})


class Settings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `archive.json` says."""

    url: str
    region: str = ""
    host: str
    """What this host is called in the inventory."""
    leads: bool = True
    """Whether it is the one that backs up the database, where several hosts share one."""
    hosts: int = 1
    """App hosts that the environment has."""
    keep: dict[str, int] = msgspec.field(default_factory=lambda: dict(KEEP))
    """Of each host: span (`daily`, `weekly`, …) -> how many backups stay."""
    drill_max_age_days: float = 8.0
    """A drill older than that is told in the status; 0 never."""
    max_age_hours: float = 25.0
    """A backup older than that is told in the status; 0 never."""


class ArchiveRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `slipway archive --json` reads."""

    name: str
    target: Target | None = None
    """None forgets how to reach it; what lies there stays."""
    host: str = ""
    leads: bool = True
    hosts: int = 1
    keep: dict[str, int] = msgspec.field(default_factory=dict)
    drill_max_age_days: float = 8.0
    max_age_hours: float = 25.0
    times: list[str] = []
    """Times of day, `HH:MM`, at which it is backed up."""
    drill_day: Day | None = None
    drill_time: str = ""
    """When its newest backup is restored to scratch databases; never without."""
    check: bool = False


def declare(request: ArchiveRequest, root: Path = ROOT) -> dict[str, Any]:
    """Have the host know its archive, and the archive be there. Raises :class:`SlipwayError`; then all is as it was."""
    archive = Archive(Store(request.name, root))
    if request.target is None:
        there = archive.exists()
        units = settle([], request.name, KINDS, check=request.check)
        if there and not request.check:
            archive.forget()
        changed = bool(there or units)
        return {"changed": changed, "msg": "No longer backed up; what lies at the target stays." if changed else ""}
    if wrong := problems(request.target):
        raise UsageError(wrong[0], " ".join(wrong[1:]) or "Correct that, and run the play again.")
    if unknown := sorted(request.keep.keys() - SPANS) or [key for key, number in request.keep.items() if number < 1]:
        raise UsageError(
            f"backup_keep has {unknown[0]}, which cannot be kept.",
            f"Use {', '.join(sorted(SPANS))}, each with a number from 1 on.",
        )
    settings = Settings(
        url=request.target.url,
        region=request.target.region,
        host=request.host,
        leads=request.leads,
        hosts=request.hosts,
        keep=request.keep or dict(KEEP),
        drill_max_age_days=request.drill_max_age_days,
        max_age_hours=request.max_age_hours,
    )
    wanted = {SETTINGS_FILE: msgspec.json.format(msgspec.json.encode(settings)).decode() + "\n"}
    answer = archive.settle(wanted | secret_files(request.target), settings, check=request.check)
    units = settle(_jobs(request), request.name, KINDS, check=request.check)
    said = " ".join([answer["msg"], *[f"Scheduled: {', '.join(units)}."] * bool(units)])
    return {"changed": bool(answer["changed"] or units), "msg": said.strip()}


def _jobs(request: ArchiveRequest) -> list[Job]:
    name = request.name
    wait = [f"--wait={WAIT}"]
    jobs = []
    if request.times:
        command = [PROGRAM, "backup", "--name", name, *wait]
        jobs.append(Job(kind="backup", what=f"Back up {name}", command=command, times=request.times))
    if request.drill_time:
        command = [PROGRAM, "drill", "--name", name, *wait]
        times = [request.drill_time]
        what = f"Restore the newest backup of {name} on trial"
        jobs.append(Job(kind="drill", what=what, command=command, times=times, day=request.drill_day))
    return jobs


class Archive:
    """The archive of an environment as its host knows it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.folder / FOLDER

    def exists(self) -> bool:
        """Whether this host backs the environment up."""
        return (self.folder / SETTINGS_FILE).exists()

    @property
    def settings(self) -> Settings:
        """Raises :class:`PreflightError` where there are none, or none that this version can read."""
        try:
            return msgspec.json.decode((self.folder / SETTINGS_FILE).read_bytes(), type=Settings)
        except FileNotFoundError:
            raise PreflightError(
                f"{self.store.name} has no archive: nothing says where its backups go.",
                "Set backup_target in its inventory, and run playbooks/archive.yml.",
            ) from None
        except msgspec.MsgspecError as error:
            raise PreflightError(
                f"{self.folder / SETTINGS_FILE} cannot be read: {error}.", "Run playbooks/archive.yml."
            ) from error

    @property
    def restic(self) -> Restic:
        """What lies at its target."""
        settings = self.settings
        return Restic(settings.url, self.store.name, settings.host, self.folder, settings.region)

    def settle(self, wanted: dict[str, str], settings: Settings, *, check: bool) -> dict[str, Any]:
        """Write what differs, and see that the archive is there and opens; else put back what was there."""
        have = {name: self._read(name) for name in {*wanted, *self._present()}}
        differs = sorted(name for name in have if have[name] != wanted.get(name))
        if check:
            return {"changed": bool(differs), "msg": _said(differs)}
        # Each of them, since what has to be made above a folder is open to all.
        for folder in (self.store.folder, self.folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with hold(self.folder):
            try:
                for name in differs:
                    self._write(name, wanted.get(name))
                restic = Restic(settings.url, self.store.name, settings.host, self.folder, settings.region)
                made = not restic.ready()
                if made:
                    restic.make()
            except BaseException:
                for name in differs:
                    self._write(name, have[name])
                raise
        said = [f"Made the archive at {shown(restic.place)}."] if made else []
        return {"changed": bool(differs or made), "msg": " ".join([*said, _said(differs)]).strip()}

    def forget(self) -> None:
        """Forget how to reach it."""
        for name in self._present():
            (self.folder / name).unlink()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for one backup or drill, and let go of locks that killed ones left."""
        with hold(self.folder):
            self.restic.unlock()
            yield

    def _present(self) -> list[str]:
        if not self.folder.exists():
            return []
        return [path.name for path in self.folder.iterdir() if path.is_file() and path.name != "lock"]

    def _read(self, name: str) -> str | None:
        try:
            return (self.folder / name).read_text()
        except FileNotFoundError:
            return None

    def _write(self, name: str, content: str | None) -> None:
        path = self.folder / name
        if content is None:
            path.unlink(missing_ok=True)
            return
        beside = self.folder / f".{name}"
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        with os.fdopen(handle, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        beside.rename(path)


def warnings(archive: Archive, entries: Sequence[Entry], now: float | None = None) -> list[str]:
    """What an operator should know of the backups of an environment that has an archive, a sentence each."""
    settings, at = archive.settings, time.time() if now is None else now
    found = []
    backups = [entry for entry in entries if entry.phase == "backup"]
    good = [entry for entry in backups if entry.result == "good"]
    if backups and backups[-1].result != "good":
        found.append(f"The newest backup failed: {backups[-1].reason}")
    limit = settings.max_age_hours * 3600
    if limit and (not good or at - _moment(good[-1]) > limit):
        found.append(f"The newest backup is {_old(good, at)}.")
    if good and _moment(good[-1]) > at + FUTURE:
        found.append("The newest backup is dated in the future: the clock was wrong then, or is now.")
    drills = [entry for entry in entries if entry.phase == "drill"]
    tried = [entry for entry in drills if entry.result == "good"]
    if drills and drills[-1].result != "good":
        found.append(f"The newest drill failed: {drills[-1].reason}")
    limit = settings.drill_max_age_days * 86400
    if limit and (not tried or at - _moment(tried[-1]) > limit):
        found.append(f"The newest drill, which restores a backup on trial, is {_old(tried, at)}.")
    return found


def _old(entries: Sequence[Entry], now: float) -> str:
    return f"{span(now - _moment(entries[-1]))} old" if entries else "still to come: there was none"


def _moment(entry: Entry) -> float:
    return datetime.fromisoformat(entry.at).timestamp()


def _said(differs: list[str]) -> str:
    return f"Written: {', '.join(differs)}." if differs else ""
