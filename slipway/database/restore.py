"""The way of the bundled database back to a moment: from a backup and the log since, on a volume of its own.

The old volume is never written to, and stays. Until a server has come up on the new one, by itself and reached by
nobody, and its databases were looked at, the old server goes on: a call that is cut off leaves it, and the next call
begins anew. Then the new volume takes the place of the old one, and connections are closed for that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from slipway.daemon import LABEL_PROJECT, Daemon
from slipway.database import archive
from slipway.database.archive import Backup, Contents
from slipway.database.host import Proof, Server, env_file, noted, read_proof, write_proof
from slipway.database.repository import GAP, SYSTEM, Archiver, Repository, missing
from slipway.errors import PreflightError, SlipwayError, UnhealthyError
from slipway.release import COMPOSE_FILE, LABEL_NAME, LABEL_STACK
from slipway.stack import Stack, StackFile, StackRequest, write
from slipway.store import ROOT, hold

ROOM = 1.2
"""How many times the database's size has to be free …"""
SPARE = 1024**3
"""… with so many bytes for what is read from the log."""
PATIENCE = 600.0
"""Seconds for the server to come up on what was restored."""
MARK = "restoring.json"

MARKED = "SELECT pg_logical_emit_message(true, 'slipway', 'restore');"
"""Writes nothing but an end of a transaction: a moment up to now is found only where something lies behind it."""
VERIFIERS = """
SELECT coalesce(json_object_agg(rolname, rolpassword), '{}') FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256$%';
"""
ROLES = "SELECT coalesce(json_agg(rolname), '[]') FROM pg_authid;"
DATABASES = "SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database WHERE datallowconn;"
FORGOTTEN = "".join(
    f"ALTER SYSTEM RESET {setting};\n"
    for setting in ("restore_command", "recovery_target_time", "recovery_target_action", "recovery_target_timeline")
)
"""What pgBackRest tells a server for its recovery alone."""


class RestoreRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `slipway database-restore --json` reads."""

    name: str
    to: str
    """A moment in ISO 8601, UTC where it names no zone, or `latest`."""
    check: bool = False


class Mark(msgspec.Struct, kw_only=True, frozen=True):
    """A restore that is under way, or was cut off."""

    to: str
    volume: str
    """That is filled."""
    before: str
    """That is left."""
    copy: str = ""
    """With what is copied of the archive; empty where nothing is."""


class Restore:
    """One such way on this host."""

    def __init__(self, request: RestoreRequest, root: Path, tell: Callable[[str], None]) -> None:
        self.request = request
        self.moment = archive.moment_of(request.to)
        self.archive = Repository(request.name, root)
        self.folder = self.archive.folder
        self.root = root
        self.tell = tell
        self.container = f"slipway-{self.folder.name}-restore"
        self.trial = Server("", container=self.container)

    def run(self) -> dict[str, Any]:
        """Go back, and leave the old data beside. Raises :class:`SlipwayError`; the old server goes on then."""
        if self.request.check:
            live = self.archive.archiver()
            upto = None if live is None or live.complaint(datetime.now(UTC)) else datetime.now(UTC)
            backup, _, _ = self._choose(live, upto)
            return {"changed": True, "msg": f"To do: {self._aim()} of {backup.label}.", "kept": ""}
        with hold(self.folder):
            if finished := self._finish():
                return finished
            backup, contents, timeline = self._choose(*self._line_up())
            self._need_room(backup, contents)
            mark = self._begin()
            try:
                if mark.copy:
                    self._copy(mark, backup, contents, timeline)
                self._fetch(mark, backup, timeline)
                self._drop_copy(mark)
                reached = self._recover(mark, contents)
            except BaseException:
                self._drop(mark)
                raise
            return self._swap(mark, reached)

    # --- where to ---------------------------------------------------------------------------------------------------

    def _line_up(self) -> tuple[Archiver | None, datetime | None]:
        """Have all that was written until now in the archive, where the server runs and the archive is its own.

        Gives how archiving goes, and until when all of it is there.
        """
        archiver, now = self.archive.archiver(), datetime.now(UTC)
        if archiver is None or archiver.system != self.archive.contents().system:
            return archiver, None
        self.tell("Waiting for the log of what was written until now.")
        try:
            self.archive.server.psql(MARKED)
            self.archive.arrive()
        except SlipwayError as error:
            self.tell(f"It does not arrive, so what was archived before has to do. {error.what}")
            return archiver, None
        return archiver, now

    def _choose(self, live: Archiver | None, upto: datetime | None) -> tuple[Backup, Contents, int]:
        """The backup to begin with, and the timeline to follow. Raises :class:`PreflightError`."""
        found = self.archive.contents()
        if not found.backups:
            raise PreflightError(
                f"There is no backup of the database of {self.request.name} at {self.archive.about.where}.",
                "Take one: slipway db backup.",
            )
        listed = self.archive.listed(found)
        archived, timeline = archive.segments(listed), self.archive.newest(found, live, listed)
        line = self.archive.line(found, timeline)
        windows = archive.windows(found.backups, line, archived, upto)
        backup = archive.base(found.backups, line, archived, self.moment, upto)
        if backup is None:
            more = f" {GAP}" if len(windows) > 1 else ""
            if since := archive.missing_since(found.backups, line, archived):
                more += f" {missing(since)}"
            raise PreflightError(
                f"The database of {self.request.name} cannot go back to {self.request.to}.",
                f"{archive.told(windows)}{more}",
            )
        return backup, found, timeline

    def _aim(self) -> str:
        where = f"to {archive.clock(self.moment)}" if self.moment else "to the end of what was archived"
        return f"the database of {self.request.name} goes back {where}, by way"

    @property
    def _copies(self) -> bool:
        """Whether what a restore reads is copied here before."""
        return self.archive.about.place.kind == "sftp"

    def _need_room(self, backup: Backup, contents: Contents) -> None:
        copied = archive.stored(backup, contents) if self._copies else 0
        needed = int(ROOM * backup.size) + SPARE + copied
        free = shutil.disk_usage(Daemon().root()).free
        if free < needed:
            beside = f", its backup, which is copied here first, has {copied // 1024**2} MB" if copied else ""
            raise PreflightError(
                f"The database had {backup.size // 1024**2} MB{beside}, and {free // 1024**2} MB are free where Docker "
                "keeps volumes.",
                f"Free {needed // 1024**2} MB there, and run this again.",
            )

    # --- the new volume ---------------------------------------------------------------------------------------------

    def _begin(self) -> Mark:
        major = noted(self.folder)["DATABASE_MAJOR"]
        name = f"{self.request.name}-database-{major}-{datetime.now(UTC):%Y%m%d%H%M%S}"
        copy = f"{name}-backup" if self._copies else ""
        mark = Mark(to=self.request.to, volume=name, before=noted(self.folder)["DATABASE_VOLUME"], copy=copy)
        self._write(mark)
        labels = {LABEL_NAME: self.folder.name, LABEL_STACK: "database", LABEL_PROJECT: f"slipway-{self.folder.name}"}
        Daemon().make_volume(mark.volume, {**labels, "com.docker.compose.volume": "data"})
        if copy:
            Daemon().make_volume(copy, labels)
        return mark

    def _copy(self, mark: Mark, backup: Backup, contents: Contents, timeline: int) -> None:
        self.tell(f"Copying the backup {backup.label}, {archive.stored(backup, contents) // 1024**2} MB.")
        commands = archive.copying(self.archive.about.place, backup, contents.archive, timeline)
        self.archive.copy(commands, mark.copy, self.container)

    def _fetch(self, mark: Mark, backup: Backup, timeline: int) -> None:
        self.tell(f"Fetching the backup {backup.label}, {backup.size // 1024**2} MB.")
        to = (
            ["--type=time", f"--target={self.moment:%Y-%m-%d %H:%M:%S.%f}+00", "--target-action=promote"]
            if self.moment
            else ["--type=default"]
        )
        mounts = [f"{mark.volume}:/var/lib/postgresql/data"]
        options = [f"--set={backup.label}", f"--target-timeline={timeline}", *to]
        if mark.copy:
            options += archive.FROM_COPY
        self.archive.alone(*options, "restore", mounts=mounts, container=self.container, copy=mark.copy)

    def _recover(self, mark: Mark, contents: Contents) -> datetime | None:
        """Have a server read the log up to the moment, and look at what came of it; of when the last change is."""
        self.tell("Reading the log.")
        env = noted(self.folder)
        alone = [
            "postgres", "-c", "config_file=/etc/postgresql/postgresql.conf",
            # Nobody reaches it, and nothing of it is archived before it counts. What it would archive waits.
            "-c", "listen_addresses=", "-c", "port=5432", "-c", "ssl=off", "-c", "archive_command=",
            "-c", "hot_standby=off",
        ]  # fmt: skip
        done = subprocess.run(
            ["docker", "run", "--detach", "--name", self.container,
             *self.archive.confined([f"{mark.volume}:/var/lib/postgresql/data"]),
             f"--memory={env['DATABASE_MEMORY']}", f"--shm-size={env['DATABASE_SHARED_MEMORY']}",
             self.archive.image(), *alone],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise SlipwayError(
                "The server that reads the log did not start.",
                "The old one goes on. Docker's words are below.",
                details=done.stderr.strip(),
            )
        self._wait_for_it()
        self._look(contents)
        reached = self.trial.tuples("SELECT extract(epoch FROM pg_last_xact_replay_timestamp());").strip()
        self._keep_passwords()
        self.trial.psql(FORGOTTEN)
        # On disk before it counts.
        self._end_container()
        os.sync()
        return datetime.fromtimestamp(float(reached), UTC) if reached else None

    def _wait_for_it(self) -> None:
        """Until it has read all and takes questions, which takes as long as it takes."""
        while self._container_state() == "running":
            try:
                if self.trial.tuples("SELECT pg_is_in_recovery();").strip() == "f":
                    return
            except SlipwayError:
                pass
            time.sleep(0.3)
        words = self._log()
        if "recovery ended before configured recovery target was reached" in words:
            raise PreflightError(
                f"The log in the archive ends before {self.request.to}.",
                "The old server goes on. Go back to an earlier moment, or to `latest`.",
                details=words,
            )
        raise SlipwayError(
            "PostgreSQL could not read the log up to that moment.",
            "The old server goes on. Its words are below; go back to another moment.",
            details=words,
        )

    def _look(self, contents: Contents) -> None:
        """Whether it is the cluster, and its databases can be used."""
        if self.trial.tuples(SYSTEM).strip() != contents.system:
            raise SlipwayError("What was restored is not what was backed up.", "The old server goes on.")
        for name in msgspec.json.decode(self.trial.tuples(DATABASES), type=list[str]):
            self.trial.tuples("SELECT count(*) FROM pg_class;", database=name)

    def _keep_passwords(self) -> None:
        """Today's passwords are those that applications have."""
        try:
            today = msgspec.json.decode(self.archive.server.tuples(VERIFIERS), type=dict[str, str])
        except SlipwayError:
            return
        there = msgspec.json.decode(self.trial.tuples(ROLES), type=list[str])
        statements = [f"ALTER ROLE {_name(role)} PASSWORD '{today[role]}';" for role in there if role in today]
        self.trial.psql("SET log_min_error_statement = panic;\n" + "\n".join(statements))

    # --- the swap ---------------------------------------------------------------------------------------------------

    def _swap(self, mark: Mark, reached: datetime | None) -> dict[str, Any]:
        """Have the server run on the new volume; where it does not come up there, on the old one again."""
        self.tell("Putting it in the place of the old one.")
        try:
            self._use(mark.volume)
        except SlipwayError as error:
            self._use(mark.before)
            self._drop(mark)
            raise UnhealthyError(
                f"The server does not come up on what was restored: {error.what}",
                "The old data serves again. Its words are below.",
                details=error.details,
            ) from error
        return self._done(mark, reached)

    def _use(self, volume: str) -> None:
        """Have the server run on a volume: the file says which counts, and Compose follows it."""
        compose = StackFile(path=COMPOSE_FILE, content=(self.folder / COMPOSE_FILE).read_text())
        wanted = env_file({**noted(self.folder), "DATABASE_VOLUME": volume})
        request = StackRequest(name=self.folder.name, files=[compose, wanted], wait=PATIENCE)
        Stack(request, self.root).present(held=True)

    def _finish(self) -> dict[str, Any]:
        """Bring to its end, or remove, what a call has left that was cut off; the answer where it was this restore."""
        try:
            mark = msgspec.json.decode((self.folder / MARK).read_bytes(), type=Mark)
        except FileNotFoundError:
            return {}
        if noted(self.folder).get("DATABASE_VOLUME") != mark.volume:
            self._drop(mark)
            return {}
        answer = self._swap(mark, None)
        return answer if mark.to == self.request.to else {}

    def _done(self, mark: Mark, reached: datetime | None) -> dict[str, Any]:
        where = f" (the last change in it is of {archive.clock(reached)})" if reached else ""
        said = [
            f"The database of {self.request.name} is as it was at "
            f"{archive.clock(self.moment) if self.moment else 'the end of what was archived'}{where}.",
            f"The volume {mark.before} keeps the data from before ({self._size(mark.before)}); "
            f"when nobody needs it any more: docker volume rm {mark.before}.",
        ]
        system = self.archive.server.tuples(SYSTEM).strip()
        try:
            self.archive.arrive()
            write_proof(self.folder, Proof(system=system, proven=True))
        except SlipwayError as error:
            write_proof(self.folder, Proof(system=read_proof(self.folder).system))
            said.append(f"It is not archived any more: {error.what} {error.do_next}")
        (self.folder / MARK).unlink()
        return {"changed": True, "msg": " ".join(said), "kept": mark.before}

    @staticmethod
    def _size(volume: str) -> str:
        where = Daemon().make_volume(volume, {})
        size = sum(path.lstat().st_size for path in where.rglob("*") if path.is_file() and not path.is_symlink())
        return f"{size // 1024**2} MB"

    # --- what is left behind ----------------------------------------------------------------------------------------

    def _write(self, mark: Mark) -> None:
        write(StackFile(path=MARK, content=msgspec.json.encode(mark).decode(), mode="0600"), self.folder)

    def _drop(self, mark: Mark) -> None:
        """Remove what a restore has made that did not come to its end."""
        self._end_container()
        subprocess.run(["docker", "volume", "rm", "--force", mark.volume], check=False, capture_output=True)
        self._drop_copy(mark)
        (self.folder / MARK).unlink(missing_ok=True)

    @staticmethod
    def _drop_copy(mark: Mark) -> None:
        if mark.copy:
            subprocess.run(["docker", "volume", "rm", "--force", mark.copy], check=False, capture_output=True)

    def _end_container(self) -> None:
        subprocess.run(["docker", "stop", "--time=300", self.container], check=False, capture_output=True)
        subprocess.run(["docker", "rm", "--force", self.container], check=False, capture_output=True)

    def _container_state(self) -> str:
        done = subprocess.run(
            ["docker", "inspect", "--format={{.State.Status}}", self.container],
            check=False,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def _log(self) -> str:
        done = subprocess.run(
            ["docker", "logs", "--tail=20", self.container],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.stdout.strip()


def restore(request: RestoreRequest, root: Path = ROOT, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Go back to a moment. The answer: `changed`, `msg`, and `kept`, the volume with the data from before."""
    return Restore(request, root, tell).run()


def _name(role: str) -> str:
    doubled = role.replace('"', '""')
    return f'"{doubled}"'
