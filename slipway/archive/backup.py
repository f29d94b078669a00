"""One backup: the database, dumped and verified, volumes that the contract marks, and what the release was.

A snapshot of the archive holds, below `outgoing/`:

    about.json              what it is: `About`
    manifest.json           of the release that served
    backups/<id>/backup     of each database, with `backup.json` (`slipway.backups`)

and beside it the folders of the volumes.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from slipway import __version__
from slipway.archive.restic import Restic, Snapshot
from slipway.archive.settings import Archive, Settings
from slipway.backups import BACKUP_FILE, Backup, Backups, in_a_name
from slipway.errors import PreflightError, SlipwayError
from slipway.ledger import Entry, Ledger
from slipway.pace import step_aside
from slipway.release import MANIFEST_FILE, Manifest

if TYPE_CHECKING:
    from slipway.deploy import Deploy

OUTGOING = "outgoing"
ABOUT_FILE = "about.json"
TAG = "slipway"
TOGETHER = timedelta(minutes=10)
"""How much later than another one a host may begin with a backup of the same time: it may have waited for a deploy."""


class About(msgspec.Struct, kw_only=True, frozen=True):
    """What a backup in the archive is. `at` is UTC in ISO 8601."""

    id: str
    at: str
    name: str
    """The environment's."""
    host: str
    release: str
    revision: str
    """The revision that the schema was at."""
    kit: str
    databases: list[Backup]
    volumes: dict[str, str]
    """Volume -> its folder, under which it stands in the snapshot."""


class Listed(msgspec.Struct, kw_only=True, frozen=True):
    """A backup as it is listed. `at` and `verified` are UTC in ISO 8601, `size` bytes before any compression."""

    id: str
    at: str
    host: str
    release: str
    revision: str
    database: bool
    volumes: list[str]
    size: int
    verified: str
    """When it was restored to a scratch database last, before it left or from the archive; empty where never."""
    drilled: bool
    """Whether that was from the archive."""
    snapshot: str
    outgoing: str
    """The folder in the snapshot that tells what it is."""


def take(deploy: Deploy) -> dict[str, Any]:
    """Back the environment up; the answer is what was written. It raises whatever kept it from being whole.

    The lease is held while the database is dumped and verified, and not while the archive is written to.
    """
    archive = Archive(deploy.store)
    settings = archive.settings
    manifest = served(deploy)
    what = _what(deploy, manifest, settings)
    if not what:
        return {"changed": False, "msg": f"Nothing of {manifest.name} is to be backed up on this host."}
    if deploy.run.check:
        return {"changed": True, "msg": f"Would back up {', '.join(what)}."}
    step_aside()
    with deploy.ledger.phase(deploy.entry("backup", manifest.id)) as entry, archive.held():
        about, paths = _gathered(deploy, archive)
        entry.release, entry.backup = about.release, about.id
        summary = archive.restic.backup(paths, host=settings.host, tags=_tags(about, _size(paths)))
        shutil.rmtree(archive.folder / OUTGOING)
        archive.restic.forget(settings.keep, host=settings.host, never=f"id={about.id}")
    return {
        "changed": True,
        "backup": about.id,
        "size": summary.total_bytes_processed,
        "sent": summary.data_added,
        "seconds": entry.seconds,
        "msg": f"Backed up {', '.join(what)} as {about.id}: {size_text(summary.total_bytes_processed)}, of which "
        f"{size_text(summary.data_added)} were new.",
    }


def served(deploy: Deploy) -> Manifest:
    """The manifest of what serves. Raises :class:`PreflightError` before the first release."""
    current = deploy.store.current()
    if current is None:
        raise PreflightError(f"No release of {deploy.store.name} has served yet.", "Deploy one: playbooks/deploy.yml.")
    return deploy.store.manifest(current)


def marked(manifest: Manifest) -> list[str]:
    """The volumes that go to the archive, by their names on a host."""
    return sorted(
        {
            f"{manifest.name}-{volume}"
            for service in manifest.services.values()
            for volume, body in service.volumes.items()
            if body.backup
        }
    )


def _what(deploy: Deploy, manifest: Manifest, settings: Settings) -> list[str]:
    databases = deploy.schema.backed_up(manifest) if settings.leads else []
    return [*(f"the database of {service}" for service in databases), *(f"volume {name}" for name in marked(manifest))]


def _gathered(deploy: Deploy, archive: Archive) -> tuple[About, list[Path]]:
    outgoing = archive.folder / OUTGOING
    shutil.rmtree(outgoing, ignore_errors=True)
    outgoing.mkdir(mode=0o700)
    at = datetime.now(UTC)
    databases = []
    with deploy.holding("backup"):
        # A deploy that was waited for may have brought another release.
        manifest = served(deploy)
        for service in deploy.schema.backed_up(manifest) if archive.settings.leads else []:
            revision = deploy.schema.revision(manifest, service)
            databases.append(deploy.schema.back_up(manifest, service, revision, Backups(outgoing)))
    volumes = {name: str(deploy.daemon.make_volume(name, {})) for name in marked(manifest)}
    revision = databases[-1].revision if databases else deploy.ledger.schema()
    about = About(
        id=f"{at:%Y%m%dT%H%M%S}Z-{in_a_name(revision)}".rstrip("-"),
        at=at.isoformat(timespec="seconds"),
        name=manifest.name,
        host=archive.settings.host,
        release=manifest.id,
        revision=revision,
        kit=__version__,
        databases=databases,
        volumes=volumes,
    )
    (outgoing / ABOUT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=2))
    shutil.copyfile(deploy.store.path(manifest.id) / MANIFEST_FILE, outgoing / MANIFEST_FILE)
    return about, [outgoing, *map(Path, volumes.values())]


def _tags(about: About, size: int) -> list[str]:
    told: Mapping[str, str] = {
        "id": about.id,
        "at": about.at,
        "release": about.release,
        "schema": in_a_name(about.revision),
        "database": "yes" if about.databases else "no",
        "volumes": "+".join(about.volumes),
        "bytes": str(size),
    }
    return [TAG, *(f"{key}={value}" for key, value in told.items())]


def _size(paths: list[Path]) -> int:
    return sum(path.lstat().st_size for folder in paths for path in folder.rglob("*") if path.is_file())


# --- what is there ----------------------------------------------------------------------------------------------------


def listed(restic: Restic, ledger: Ledger) -> list[Listed]:
    """All backups of an archive, newest first."""
    entries = ledger.entries()
    return [_listed(snapshot, entries) for snapshot in reversed(restic.snapshots([TAG]))]


def _listed(snapshot: Snapshot, entries: list[Entry]) -> Listed:
    about = snapshot.about
    name = about.get("id", snapshot.id[:8])
    ends = [entry for entry in entries if entry.backup == name and entry.result == "good"]
    verified = [entry for entry in ends if entry.phase == "drill" or (entry.phase == "backup" and _has_database(about))]
    return Listed(
        id=name,
        at=about.get("at", snapshot.time),
        host=snapshot.hostname,
        release=about.get("release", ""),
        revision=about.get("schema", ""),
        database=_has_database(about),
        volumes=[volume for volume in about.get("volumes", "").split("+") if volume],
        size=int(about.get("bytes", "0")),
        verified=verified[-1].at if verified else "",
        drilled=any(entry.phase == "drill" for entry in verified),
        snapshot=snapshot.id,
        outgoing=next((path for path in snapshot.paths if path.endswith(f"/{OUTGOING}")), ""),
    )


def _has_database(about: Mapping[str, str]) -> bool:
    return about.get("database") == "yes"


def choose_beside(found: list[Listed], *, at: str, host: str) -> Listed:
    """The one of these backups that `host` took when another host took one, `at` (ISO 8601).

    Hosts back up at the same times, and none of them at the very second of another: it is the one that is nearest, as
    far as it is not :data:`TOGETHER` younger. Raises :class:`PreflightError` where there is none.
    """
    when = moment(at)
    since = {one.id: datetime.fromisoformat(one.at) - when for one in found if one.host == host}
    fitting = [one for one in found if one.id in since and since[one.id] <= TOGETHER]
    if not fitting:
        raise PreflightError(
            f"The archive has no backup of {host} from {at} or before.", "slipway backups lists those that it has."
        )
    return min(fitting, key=lambda one: abs(since[one.id]))


def choose(
    found: list[Listed], *, backup: str = "", at: str = "", release: str = "", host: str = "", database: bool = False
) -> Listed:
    """The newest of these backups that fits: its id begins with `backup`, it is not younger than `at` (ISO 8601), was
    taken under a release whose id begins with `release`, on `host`, with the `database` in it.

    Raises :class:`PreflightError` where none does.
    """
    until = moment(at) if at else None
    for one in found:
        if host and one.host != host:
            continue
        fits = one.id.startswith(backup) and one.release.startswith(release) and (one.database or not database)
        if fits and (until is None or datetime.fromisoformat(one.at) <= until):
            return one
    wanted = " ".join(
        [
            f"backup {backup}" if backup else "backup",
            *([f"from {at} or before"] if at else []),
            *([f"of release {release}"] if release else []),
        ]
    )
    newest = f"The newest is {found[0].id}, the oldest {found[-1].id}." if found else "It is empty."
    raise PreflightError(f"The archive has no {wanted}.", f"{newest} slipway backups lists all of them.")


def moment(text: str) -> datetime:
    """A time in ISO 8601, UTC where it names no zone. Raises :class:`PreflightError`."""
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise PreflightError(
            f"{text} is no time.", "Write it as 2025-01-31T18:30:00Z, or with an offset such as +02:00."
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def about_of(restic: Restic, one: Listed) -> About:
    """Read what a backup is."""
    with tempfile.TemporaryFile() as file:
        restic.read(one.snapshot, f"{one.outgoing}/{ABOUT_FILE}", file)
        file.seek(0)
        try:
            return msgspec.json.decode(file.read(), type=About)
        except msgspec.MsgspecError as error:
            raise SlipwayError(
                f"The backup {one.id} was not made by this kit, or by a newer one: {error}.", "Choose another one."
            ) from error


def fetch(restic: Restic, one: Listed, backup: Backup, into: Backups) -> None:
    """Bring the backup of one database from the archive to a folder of backups."""
    with into.received(backup) as file:
        restic.read(one.snapshot, f"{one.outgoing}/backups/{backup.id}/{BACKUP_FILE}", file)


def size_text(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:  # noqa: PLR2004 - the next unit
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def seconds_since(at: str) -> float:
    """How long ago a time in ISO 8601 is."""
    return time.time() - datetime.fromisoformat(at).timestamp()
