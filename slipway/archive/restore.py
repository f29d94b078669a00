"""A restore: the data of a backup in the place of the live data, with users kept out meanwhile.

    marked, kept out -> a backup of what is there -> fetched -> stopped -> put in place -> migrated -> started -> let in

What comes from the archive is brought before anything is stopped. A restore that fails puts back what was there. One
that is killed leaves its mark: no deploy goes on then, and the next restore, of the same backup or of another one, ends
well.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from slipway.archive.backup import (
    About,
    Listed,
    about_of,
    choose,
    choose_beside,
    fetch,
    listed,
    marked,
    moment,
    seconds_since,
    served,
    size_text,
)
from slipway.archive.restic import Restic
from slipway.archive.settings import Archive
from slipway.backups import Backup, Backups, compare, span
from slipway.edge import Maintenance
from slipway.errors import PreflightError, SlipwayError, UnhealthyError
from slipway.plan import Activation
from slipway.release import Manifest
from slipway.schema import Way
from slipway.store import RESTORING_FILE
from slipway.switch import stop_release
from slipway.watch import Soak

if TYPE_CHECKING:
    from slipway.deploy import Deploy

INCOMING = "restoring"
"""In the folder of the archive: the databases that are put in place."""
REASON = "Data is being restored."
RESTORED = "slipway-restored"
BEFORE = "slipway-before"
"""Beside a volume's own folder, in the folder that Docker has for the volume."""


class Mark(msgspec.Struct, kw_only=True):
    """What a restore leaves until it has ended: `restoring.json`."""

    backup: str
    at: str
    run: str
    kept: list[str] = []
    """The backups of the live databases that were taken before, among those before migrations."""
    maintenance: bool = False
    """Whether users were kept out before, so that they stay out."""
    half: bool = False
    """Whether the live data may be half of before and half from the archive."""


class Wanted(msgspec.Struct, kw_only=True, frozen=True):
    """Which backup is restored, and how. Without any of the first four, the newest."""

    backup: str = ""
    """Its id; the first digits are enough."""
    at: str = ""
    """The newest that is not younger than this; ISO 8601."""
    beside: str = ""
    """The one of this host that goes with one that another host took at this time; ISO 8601."""
    release: str = ""
    """The newest that was taken under this release, which serves afterwards."""
    confirmed: str = ""
    """The id of the backup for which the loss of what was written since is accepted."""
    keep: bool = True
    """Whether the live databases are backed up before; without, what is there need not be readable any more."""
    database: bool = True
    """Whether the database is restored, and not the volumes alone."""
    stay_closed: bool = False
    """Whether users stay kept out: other hosts are not there yet."""
    as_it_is: bool = False
    """Whether data of another environment may be used without being anonymised."""


class Work(NamedTuple):
    """What a restore has to do."""

    current: Manifest
    """What serves."""
    target: Manifest
    """What serves afterwards."""
    one: Listed
    databases: list[Backup]
    volumes: dict[str, str]
    """Volume of this host -> the folder that the snapshot has of it."""


class Restore:
    """Restores of the environment of `deploy`, from its own archive or from that of environment `source`."""

    def __init__(self, deploy: Deploy, restic: Restic | None = None, source: str = "") -> None:
        self._deploy = deploy
        self._archive = Archive(deploy.store)
        self._foreign = restic is not None
        self._source = source or deploy.store.name
        self._restic = restic or self._archive.restic
        self._path = deploy.store.folder / RESTORING_FILE

    # --- the whole of it -------------------------------------------------------------------------------------------

    def run(self, wanted: Wanted) -> dict[str, Any]:
        """Restore. Raises :class:`PreflightError` where what is lost is not confirmed, with nothing changed, and
        :class:`UnhealthyError` where it failed, with the data and the release of before serving again."""
        deploy = self._deploy
        if not wanted.database and deploy.store.current() is None:
            # The database of a new host was restored before anything was deployed there.
            return {"changed": False}
        work = self._chosen(wanted)
        one = work.one
        if deploy.run.check:
            return {"changed": True, "backup": one.id, "msg": f"Would restore {one.id}. {self._lost(work)}".strip()}
        deploy.need_edge(work.target)
        with deploy.holding("restore"):
            if served(deploy).id != work.current.id:
                raise PreflightError(
                    f"Another release of {deploy.store.name} has come to serve while this waited for it.",
                    "Look how it stands, and run this again.",
                )
            self._restore(work, wanted)
        said = (
            f"{deploy.store.name} has the data of {one.id}: {size_text(one.size)}, {span(seconds_since(one.at))} old."
        )
        return {
            "changed": True,
            "backup": one.id,
            "release": work.target.id,
            "data_age": round(seconds_since(one.at), 3),
            "msg": said if work.databases or work.volumes else f"{work.target.id} serves.",
        }

    def choose(self, wanted: Wanted) -> dict[str, Any]:
        """Say which backup :meth:`run` would restore, or raise what it would raise before it changes anything."""
        if not wanted.database and self._deploy.store.current() is None:
            return {"changed": False}
        work = self._chosen(wanted)
        return {"changed": False, "backup": work.one.id, "at": work.one.at, "volumes": sorted(work.volumes)}

    def close(self, backup: str) -> dict[str, Any]:
        """Keep users out and stop what serves, so that a database that hosts share can be replaced."""
        deploy = self._deploy
        current = deploy.store.current()
        if deploy.run.check or current is None:
            return {"changed": current is not None}
        with deploy.holding("restore", keep=deploy.run.lease):
            self._mark(backup)
            self._keep_out(deploy.store.manifest(current))
            stop_release(deploy.store, deploy.daemon, current)
        return {"changed": True}

    def open(self) -> dict[str, Any]:
        """Start what served where it does not run, and let users in again, unless they were kept out before."""
        deploy = self._deploy
        mark = self._read()
        current = deploy.store.current()
        if mark is None or deploy.run.check or current is None:
            return {"changed": mark is not None}
        if mark.half:
            raise UnhealthyError(
                f"The data of {deploy.store.name} is half restored here, so users stay kept out.",
                "Run the restore again, of the same backup or of another one.",
            )
        with deploy.holding("restore"):
            manifest = deploy.store.manifest(current)
            deploy.bring_up(manifest)
            self._finish(mark, manifest)
        return {"changed": True}

    # --- what is chosen, and refused -------------------------------------------------------------------------------

    def _chosen(self, wanted: Wanted) -> Work:
        deploy = self._deploy
        current = served(deploy)
        if not wanted.database and not marked(current):
            # The release has to serve on what the database is now, all the same.
            return Work(current, current, _nothing(wanted.at or wanted.beside), [], {})
        one = self._newest(wanted)
        about = about_of(self._restic, one)
        target = self._target(current, about) if wanted.release else current
        databases = about.databases if wanted.database else []
        self._refuse_unfit(target, databases, wanted)
        work = Work(current, target, one, databases, self._volumes(target, about))
        # Volumes alone go with a database of which it was said.
        if wanted.database and not deploy.run.check and wanted.confirmed != one.id:
            raise PreflightError(
                f"Restoring {one.id} replaces the data of {deploy.store.name} by what it was "
                f"{span(seconds_since(one.at))} ago; what was written since is lost.",
                f"To go on, run it again with confirm_data_loss={one.id}.",
                details=self._lost(work),
            )
        return work

    def _newest(self, wanted: Wanted) -> Listed:
        found = listed(self._restic, self._deploy.ledger)
        if wanted.beside:
            return choose_beside(found, at=wanted.beside, host=self._archive.settings.host)
        # Data of another environment comes from whatever host leads there.
        host = "" if self._foreign else self._archive.settings.host
        return choose(
            found,
            backup=wanted.backup,
            at=wanted.at,
            release=wanted.release,
            host=host,
            database=self._foreign or (wanted.database and self._archive.settings.leads),
        )

    def _target(self, current: Manifest, about: About) -> Manifest:
        if about.release == current.id:
            return current
        if about.release not in self._deploy.store.ids():
            raise PreflightError(
                f"The release {about.release} is no longer on this host.",
                f"Deploy its tag, and restore {about.id} by its id.",
            )
        return self._deploy.store.manifest(about.release)

    def _refuse_unfit(self, target: Manifest, databases: list[Backup], wanted: Wanted) -> None:
        own = self._deploy.schema.backed_up(target)
        if unknown := sorted({backup.service for backup in databases} - set(own)):
            raise PreflightError(
                f"The backup holds the database of {unknown[0]}, and the contract of {target.name} has no such service "
                "with migrate.backup.",
                "Restore it to an environment that has one.",
            )
        if not self._foreign or wanted.as_it_is:
            return
        bare = [name for name in own if not self._deploy.schema.anonymises(target, name)]
        if bare:
            raise PreflightError(
                f"The contract of {bare[0]} says no way to anonymise the data of {self._source}.",
                f"State the command in app_services.{bare[0]}.migrate.backup.anonymise, or take the data as it is with "
                "restore_as_it_is=true.",
            )

    def _lost(self, work: Work) -> str:
        """What the tables have now and had then, for people."""
        said = []
        for backup in work.databases:
            try:
                now = self._deploy.schema.count(work.target, backup.service)
            except SlipwayError as error:
                said.append(f"The rows of {backup.service} cannot be counted: {error.what}")
                continue
            said += map(str, compare(backup.rows, now))
        return "\n".join(said) or "The number of rows is the same in every table." * bool(work.databases)

    # --- how -------------------------------------------------------------------------------------------------------

    def _restore(self, work: Work, wanted: Wanted) -> None:
        deploy = self._deploy
        current, target, one = work.current, work.target, work.one
        mark = self._mark(one.id)
        if mark.half:
            # One that was killed may have replaced some of it.
            stop_release(deploy.store, deploy.daemon, current.id)
            for volume in work.volumes:
                put_back(self._folder(volume))
        for volume in work.volumes:
            # Of one that had ended but for this.
            shutil.rmtree(self._folder(volume) / BEFORE, ignore_errors=True)
        incoming = self._archive.folder / INCOMING
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(mode=0o700, parents=True)
        try:
            for backup in work.databases:
                fetch(self._restic, one, backup, Backups(incoming))
            for volume, folder in work.volumes.items():
                self._bring(one, volume, folder)
            self._keep_out(current)
            if wanted.keep and not mark.kept:
                self._keep(mark, current, work.databases)
            stop_release(deploy.store, deploy.daemon, current.id)
            way = Way(
                lambda: self._put_in_place(work, mark, Backups(incoming)),
                lambda: self._put_back(work, mark),
            )
            plan = Activation(
                start=True,
                switch=True,
                point=target.id != current.id,
                stop=tuple(sorted(deploy.running().keys() - {target.id})),
                fall_back=current.id,
            )
            reason = f"{one.id}{f' of {self._source}' if self._foreign else ''}"
            age = round(seconds_since(one.at), 3)
            deploy.switch("restore", target, plan, Soak(), way, reason=reason, backup=one.id, data_age=age)
        except SlipwayError:
            if not mark.half:
                # It serves what it did before.
                if not deploy.serves(current):
                    deploy.bring_up(current)
                self._finish(mark, current)
            raise
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        self._note(mark, half=False)
        for volume in work.volumes:
            shutil.rmtree(self._folder(volume) / BEFORE, ignore_errors=True)
        if not wanted.stay_closed:
            self._finish(mark, target)

    def _put_in_place(self, work: Work, mark: Mark, backups: Backups) -> str:
        deploy, target = self._deploy, work.target
        self._note(mark, half=True)
        revision = deploy.ledger.schema()
        for backup in work.databases:
            revision = deploy.schema.restore(target, backup.service, backup, backups)
            if self._foreign and deploy.schema.anonymises(target, backup.service):
                deploy.schema.anonymise(target, backup.service)
        for volume in work.volumes:
            put_in_place(self._folder(volume))
        pending = deploy.schema.plan(target) if self._foreign or self._archive.settings.leads else []
        if pending:
            stands = "What was there before is put back."
            revision = deploy.schema.apply(target, pending, lambda: deploy.entry("migrate", target), stands)
        return revision

    def _put_back(self, work: Work, mark: Mark) -> str:
        deploy = self._deploy
        for volume in work.volumes:
            put_back(self._folder(volume))
        revision = deploy.ledger.schema()
        kept = [backup for backup in deploy.schema.backups.list() if backup.id in mark.kept]
        for backup in kept:
            revision = deploy.schema.restore(work.current, backup.service, backup)
        self._note(mark, half=len(kept) < len(work.databases))
        return revision

    def _keep(self, mark: Mark, current: Manifest, databases: list[Backup]) -> None:
        schema = self._deploy.schema
        try:
            for backup in databases:
                revision = schema.revision(current, backup.service)
                mark.kept.append(schema.back_up(current, backup.service, revision).id)
        except SlipwayError as error:
            raise PreflightError(
                f"What is there now could not be backed up before it is replaced: {error.what}",
                "Where it is past reading, go on without: restore_keep=false.",
                details=error.details,
            ) from error
        self._write(mark)

    # --- volumes ---------------------------------------------------------------------------------------------------

    def _volumes(self, target: Manifest, about: About) -> dict[str, str]:
        own = {name.removeprefix(f"{target.name}-"): name for name in marked(target)}
        theirs = {name.removeprefix(f"{about.name}-"): folder for name, folder in about.volumes.items()}
        return {own[short]: folder for short, folder in theirs.items() if short in own}

    def _folder(self, volume: str) -> Path:
        """The folder that Docker has for a volume; its data is in `_data` there."""
        return self._deploy.daemon.make_volume(volume, {}).parent

    def _bring(self, one: Listed, volume: str, folder: str) -> None:
        """Bring a volume from the archive to a folder beside the live one, on the same file system."""
        there = self._folder(volume) / RESTORED
        beside = there.with_name(f"{RESTORED}-whole")
        for left in (there, beside):
            shutil.rmtree(left, ignore_errors=True)
        there.mkdir(mode=0o700)
        self._restic.restore(one.snapshot, folder, there)
        (there / folder.lstrip("/")).rename(beside)
        shutil.rmtree(there)
        beside.rename(there)
        os.sync()

    # --- the mark --------------------------------------------------------------------------------------------------

    def _mark(self, backup: str) -> Mark:
        mark = self._read()
        if mark is None:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            closed = self._deploy.traffic.maintenance() is not None
            mark = Mark(backup=backup, at=now, run=self._deploy.run.run, maintenance=closed)
        mark.backup = backup
        self._write(mark)
        return mark

    def _read(self) -> Mark | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Mark)
        except FileNotFoundError:
            return None

    def _write(self, mark: Mark) -> None:
        beside = self._path.with_name(f".{self._path.name}")
        beside.write_bytes(msgspec.json.encode(mark))
        beside.replace(self._path)

    def _note(self, mark: Mark, *, half: bool) -> None:
        mark.half = half
        self._write(mark)

    def _finish(self, mark: Mark, manifest: Manifest) -> None:
        """Let users in again, and take the mark away."""
        if not mark.maintenance:
            self._deploy.let_in(manifest)
        self._path.unlink(missing_ok=True)

    def _keep_out(self, manifest: Manifest) -> None:
        if self._deploy.traffic.maintenance() is None:
            since = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            page = Maintenance(since=since, by=self._deploy.run.by, reason=REASON, retry_after=60)
            self._deploy.keep_out(manifest, page)


def _nothing(at: str) -> Listed:
    """A backup with nothing in it."""
    when = (moment(at) if at else datetime.now(UTC)).isoformat()
    said = dict.fromkeys(("host", "release", "revision", "verified", "snapshot", "outgoing"), "")
    return Listed(id="nothing", at=when, database=False, volumes=[], size=0, drilled=False, **said)


def put_in_place(folder: Path) -> None:
    """Have what was brought be the volume's data, and keep what was there beside it."""
    (folder / "_data").rename(folder / BEFORE)
    (folder / RESTORED).rename(folder / "_data")


def put_back(folder: Path) -> None:
    """Have a volume's data be what it was before, wherever a replacement was cut off."""
    before, data = folder / BEFORE, folder / "_data"
    if before.exists():
        shutil.rmtree(data, ignore_errors=True)
        before.rename(data)
