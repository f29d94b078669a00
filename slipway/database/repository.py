"""pgBackRest on the host of the bundled PostgreSQL: backups into the archive, and what lies there.

What needs the server runs in its container; what only looks at the archive, or fetches from it, in one of its own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from slipway.backups import is_full
from slipway.daemon import Daemon
from slipway.database import archive
from slipway.database.archive import About, Backup, Contents, Line, Window, span
from slipway.database.host import Proof, Server, folder_of, read_proof, write_proof
from slipway.errors import PreflightError, SlipwayError, UnhealthyError
from slipway.release import COMPOSE_FILE
from slipway.store import ROOT

ARCHIVER = """
SELECT json_build_object(
    'archived', last_archived_time, 'failed', last_failed_time, 'failures', failed_count,
    'last', coalesce(last_archived_wal, ''),
    'waiting', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
    'oldest', (SELECT min(modification) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
    'system', (SELECT system_identifier::text FROM pg_control_system()),
    'timeline', ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int)
FROM pg_stat_archiver;
"""
SYSTEM = "SELECT system_identifier FROM pg_control_system();"
MISSING = 127
"""Docker's exit code for a program that the image does not have."""
LATE = timedelta(minutes=5)
"""After which a segment that waits is worth a word."""


class BackupRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `slipway database-backup --json` and `slipway database-backups --json` read."""

    name: str
    check: bool = False


class Archiver(msgspec.Struct, kw_only=True):
    """How the server's archiving goes. Times are UTC."""

    archived: datetime | None
    last: str
    """The file of its log that it has given away last; empty before the first."""
    failed: datetime | None
    failures: int
    waiting: int
    """Segments that are not archived yet."""
    oldest: datetime | None
    """Since when the first of them waits."""
    system: str
    timeline: int

    def complaint(self, now: datetime) -> str:
        """What is wrong with it; empty where it goes well."""
        if self.failed and (self.archived is None or self.failed > self.archived):
            since = f"since {archive.clock(self.archived)}" if self.archived else "so far"
            return (
                f"Archiving fails: nothing has arrived {since}, the last of {self.failures} tries was at "
                f"{archive.clock(self.failed)}, and {self.waiting} segments wait. The database goes on."
            )
        if self.oldest and now - self.oldest > LATE:
            return f"Archiving is behind: {self.waiting} segments wait, the first since {archive.clock(self.oldest)}."
        return ""


class Repository:
    """The archive of the database of an environment on this host."""

    def __init__(self, name: str, root: Path = ROOT) -> None:
        self.name = name
        self.folder = folder_of(name, root)
        self.server = Server(f"slipway-{self.folder.name}")
        try:
            self.about = msgspec.json.decode((self.folder / archive.ABOUT).read_bytes(), type=About)
        except FileNotFoundError:
            raise PreflightError(
                f"Nothing is archived of the database of {name} on this host.",
                "Name a backup_target in its inventory, and run playbooks/database.yml.",
            ) from None
        except msgspec.MsgspecError:
            raise PreflightError(
                f"What is noted of the archive of {name} on this host is of another version of the kit.",
                "Run playbooks/database.yml.",
            ) from None

    # --- looking ---------------------------------------------------------------------------------------------------

    def contents(self) -> Contents:
        """What was archived of the cluster that was archived last. Raises :class:`SlipwayError`."""
        said = archive.readable(self.alone("--output=json", "info"))
        found: list[dict[str, Any]] = msgspec.json.decode(said)
        status = found[0]["status"] if found else {}
        # 1 to 3: there is nothing there yet; others, such as a wrong password, come with exit code 0 as well.
        if status.get("code", 0) not in (0, 1, 2, 3):
            repo = (found[0].get("repo") or [{}])[0].get("status", {})
            words = f"{status.get('message', '')}\n{repo.get('message', '')}"
            raise archive.wrong(words, self.about, int(status["code"]))
        return archive.contents(said)

    def listed(self, contents: Contents) -> bytes:
        """The files of its WAL, as pgBackRest lists them."""
        return self.alone("--output=json", "--recurse", "repo-ls", f"archive/{archive.STANZA}/{contents.archive}")

    def line(self, contents: Contents, timeline: int) -> Line:
        """The timelines that lead to one."""
        if timeline == 1:
            return archive.line(1, "")
        history = f"archive/{archive.STANZA}/{contents.archive}/{timeline:08X}.history"
        return archive.line(timeline, self.alone("repo-get", history).decode())

    def archiver(self) -> Archiver | None:
        """How archiving goes; None where the server does not run."""
        try:
            return msgspec.json.decode(self.server.tuples(ARCHIVER), type=Archiver)
        except UnhealthyError:
            return None

    def alone(self, *arguments: str, mounts: Sequence[str] = (), container: str = "", copy: str = "") -> bytes:
        """Run pgBackRest in a container of its own; what it printed. Raises :class:`SlipwayError`.

        A volume named `copy` is in the place of the archive.
        """
        named = ["--name", container] if container else []
        done = subprocess.run(
            ["docker", "run", "--rm", "--log-driver=none", *named, *self.confined(mounts, copy=copy),
             "--entrypoint=pgbackrest", self.image(), *_common(), *arguments],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return self._done(done)

    def copy(self, commands: str, volume: str, container: str) -> None:
        """Copy files of an archive on an SSH host to a volume. Raises :class:`SlipwayError`."""
        done = subprocess.run(
            ["docker", "run", "--rm", "--interactive", "--log-driver=none", "--name", container,
             *self.confined(copy=volume), "--entrypoint=sftp", self.image(), *archive.sftp_words(self.about.place)],
            input=commands.encode(),
            capture_output=True,
            check=False,
        )  # fmt: skip
        if done.returncode == MISSING:
            raise PreflightError(
                "The image of the database has no sftp, which copies a backup from an SSH host.",
                "Build it anew: playbooks/images.yml, then playbooks/database.yml.",
            )
        # What it prints is what it was told.
        self._done(subprocess.CompletedProcess(done.args, done.returncode, b"", done.stderr))

    def confined(self, mounts: Sequence[str] = (), *, copy: str = "") -> list[str]:
        """Options of a container that reaches the archive, or has a copy in its place, and that nobody reaches."""
        where = self.about.folder or str(self.folder / "archive")
        # Unlike a volume a folder is not made where it is gone.
        there = f"type=volume,source={copy}" if copy else f"type=bind,source={where}"
        # Where it is a folder nothing else is needed; what else is reached is reached as the server reaches it.
        network = "none" if self.about.folder else "host"
        return [
            f"--network={network}", f"--user={archive.UID}:{archive.UID}", "--cap-drop=ALL", "--read-only",
            "--security-opt=no-new-privileges", "--pids-limit=200", "--tmpfs=/tmp",
            "--tmpfs=/run/postgresql:uid=999,gid=999,mode=2775",
            f"--volume={self.folder / 'conf'}:/etc/postgresql:ro",
            f"--volume={self.folder / 'secrets'}:/run/secrets:ro",
            f"--mount={there},target={archive.FOLDER_INSIDE}",
            *(f"--volume={mount}" for mount in mounts),
        ]  # fmt: skip

    def image(self) -> str:
        """The image of the database, as its Compose file names it."""
        done = subprocess.run(
            ["docker", "compose", "--project-directory", str(self.folder), "--file", str(self.folder / COMPOSE_FILE),
             "config", "--format", "json"],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise SlipwayError(
                f"Compose does not accept what lies in {self.folder}.",
                "Run playbooks/database.yml.",
                details=done.stderr.decode(errors="replace").strip(),
            )
        return str(msgspec.json.decode(done.stdout)["services"]["postgres"]["image"])

    # --- proving ---------------------------------------------------------------------------------------------------

    def complaint(self) -> str:
        """What is wrong with the server's archiving; empty where it goes well."""
        archiver = self.archiver()
        return archiver.complaint(datetime.now(UTC)) if archiver else ""

    def prove(self) -> list[str]:
        """Have an archive for the cluster that runs, and see that a segment of its log arrives there.

        Once that was seen it is not looked at again until something of it changes. Raises :class:`SlipwayError`.
        """
        proof, system = read_proof(self.folder), self.server.tuples(SYSTEM).strip()
        if proof.proven and proof.system == system:
            return []
        said = []
        there = self.contents().system
        if not there:
            self.beside("stanza-create")
            said.append(f"the archive is made in {self.about.where}")
        elif there != system and there == proof.system:
            # It was this host's own until an upgrade.
            self.beside("stanza-upgrade")
            said.append("the archive goes on with the new version")
        elif there != system:
            raise PreflightError(
                archive.foreign(self.about.where),
                "Restore that one here (slipway db restore --to latest), or name another folder in backup_target.",
            )
        self.arrive()
        write_proof(self.folder, Proof(system=system, proven=True))
        return [*said, "a segment of its log arrives there"]

    def arrive(self) -> None:
        """End the segment that is written to, and wait until it is in the archive. Raises :class:`SlipwayError`."""
        self.beside("check")

    # --- changing --------------------------------------------------------------------------------------------------

    def beside(self, *arguments: str) -> bytes:
        """Run pgBackRest in the server's container, out of the way of who uses it. Raises :class:`SlipwayError`."""
        done = subprocess.run(
            ["docker", "exec", self.server.container(), "nice", "-n", "10", "pgbackrest", *_common(), *arguments],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return self._done(done)

    def _done(self, done: subprocess.CompletedProcess[bytes]) -> bytes:
        if done.returncode:
            said = "\n".join(archive.readable(words) for words in (done.stdout, done.stderr))
            raise archive.wrong(said, self.about, done.returncode, full=is_full(Daemon().root()))
        return done.stdout

    def backup(self, *, check: bool = False) -> dict[str, Any]:
        """Take a backup: full where that is due, or else of what differs. Raises :class:`SlipwayError`."""
        kind = archive.kind_due(self.contents().backups, self.about.full_days, datetime.now(UTC))
        word = WORDS[kind]
        if check:
            return {"changed": True, "msg": f"To do: a backup ({word}).", "label": "", "kind": kind}
        began = datetime.now(UTC).replace(microsecond=0)
        self.beside(f"--type={kind}", "backup")
        # What counts is what lies there.
        newest = next(reversed(self.contents().backups), None)
        if newest is None or newest.ended < began:
            raise SlipwayError(
                f"pgBackRest says that it has taken a backup of {self.name}, and there is none at {self.about.where}.",
                "See whether something removes files there, and run this again.",
            )
        if newest.damaged:
            raise UnhealthyError(
                f"The backup {newest.label} of {self.name} was taken, and the database has damaged pages.",
                "Go back to before the damage (slipway db restore), or see which they are: pg_amcheck there.",
            )
        took = (newest.ended - newest.began).total_seconds()
        said = (
            f"Backup {newest.label} of {self.name} ({WORDS[newest.kind]}) is in {self.about.where} after {took:.0f} s."
        )
        return {"changed": True, "msg": said, "label": newest.label, "kind": newest.kind}

    def report(self) -> Report:
        """What is there, to when one can go back, and how archiving goes. Raises :class:`SlipwayError`."""
        contents, archiver = self.contents(), self.archiver()
        warnings = []
        if archiver is None:
            warnings.append("The database does not run, so nothing is archived.")
        elif contents.system and archiver.system != contents.system:
            warnings.append(archive.foreign(self.about.where))
        elif complaint := archiver.complaint(datetime.now(UTC)):
            warnings.append(complaint)
        found: list[Window] = []
        newest: datetime | None = None
        if contents.archive:
            listed = self.listed(contents)
            archived = archive.segments(listed)
            line = self.line(contents, self.newest(contents, archiver, listed))
            found = archive.windows(contents.backups, line, archived)
            newest = max(archived.values(), default=None)
            if len(found) > 1:
                warnings.append(GAP)
            sent = archiver.last if archiver and archiver.system == contents.system else ""
            if since := archive.missing_since(contents.backups, line, archived, sent):
                warnings.append(missing(since))
        if not contents.backups:
            warnings.append("There is no backup yet: slipway db backup takes one.")
        return Report(where=self.about.where, backups=contents.backups, windows=found, newest=newest, warnings=warnings)

    @staticmethod
    def newest(contents: Contents, archiver: Archiver | None, listed: bytes) -> int:
        """The timeline that counts: the server's, or where that is another's or does not run the last one."""
        if archiver and archiver.system == contents.system:
            return archiver.timeline
        return max([1, *archive.timelines(listed)])


class Report(msgspec.Struct, kw_only=True, frozen=True):
    """The archive of a database as it is."""

    where: str
    backups: list[Backup]
    windows: list[Window]
    newest: datetime | None
    """When the newest segment of WAL was archived."""
    warnings: list[str]

    def text(self, now: datetime) -> str:
        """For people."""
        lines = [f"{self.where}, encrypted"]
        for backup in self.backups:
            age = f"{span((now - backup.ended).total_seconds())} old"
            size, stored = (f"{bytes_ / 1024**2:.1f} MB" for bytes_ in (backup.size, backup.stored))
            row = f"  {backup.label:<33}  {WORDS[backup.kind]:<11}  {age:<22}  {size:>10}, stored {stored}"
            lines.append(f"{row}  DAMAGED PAGES" if backup.damaged else row)
        lines.append(archive.told(self.windows))
        if self.newest:
            lines.append(f"The newest log was archived {span((now - self.newest).total_seconds())} ago.")
        return "\n".join([*lines, *(f"WARNING: {warning}" for warning in self.warnings)])


WORDS = {"full": "full", "diff": "since full", "incr": "incremental"}
GAP = "Between these, log is missing: it was given up while the target could not be reached."


def missing(since: datetime) -> str:
    """That there is a gap behind the newest backup."""
    return (
        f"Log is missing behind {archive.clock(since)}: it was given up while the target could not be reached. "
        "What came after it cannot be gone back to before the next backup: slipway db backup takes one."
    )


def _common() -> list[str]:
    return [f"--stanza={archive.STANZA}", "--log-level-console=warn", "--no-log-timestamp"]
