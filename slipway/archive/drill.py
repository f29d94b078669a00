"""A drill: the newest backup is brought from the archive and restored where nobody is served, to see that it can be."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any

from slipway.archive.backup import (
    About,
    Listed,
    about_of,
    choose,
    fetch,
    listed,
    seconds_since,
    served,
    size_text,
)
from slipway.archive.restic import Restic
from slipway.archive.settings import Archive
from slipway.backups import Backup, Backups, compare
from slipway.errors import UnhealthyError
from slipway.pace import step_aside
from slipway.release import Manifest

if TYPE_CHECKING:
    from slipway.deploy import Deploy

INCOMING = "incoming"


def drill(deploy: Deploy, *, backup: str = "") -> dict[str, Any]:
    """Restore a backup of this host, the newest unless one is named, to scratch databases, and read its volumes whole.

    Each database is opened, its rows are counted and compared with those that were counted when it was taken, and it
    is asked for its revision. The answer holds `seconds`, how long all that took, and `data_age`, in seconds. Raises
    :class:`UnhealthyError` where the backup is not what was taken, and what keeps it from being read.
    """
    archive = Archive(deploy.store)
    settings = archive.settings
    manifest = served(deploy)
    restic = archive.restic
    if deploy.run.check:
        one = choose(listed(restic, deploy.ledger), backup=backup, host=settings.host)
        return {"changed": True, "msg": f"Would restore {one.id} to scratch databases."}
    step_aside()
    with deploy.ledger.phase(deploy.entry("drill", manifest.id)) as entry, archive.held():
        one = choose(listed(restic, deploy.ledger), backup=backup, host=settings.host)
        entry.backup, entry.data_age = one.id, round(seconds_since(one.at), 3)
        began = time.monotonic()
        restic.check()
        about = about_of(restic, one)
        rows = _databases(deploy, archive, one, about)
        _volumes(restic, one, about)
        seconds = round(time.monotonic() - began, 3)
    return {
        "changed": True,
        "backup": one.id,
        "rows": rows,
        "revision": about.revision,
        "seconds": seconds,
        "data_age": entry.data_age,
        "msg": f"{one.id} can be restored: {size_text(one.size)}, schema {about.revision or 'none'}, "
        f"{sum(rows.values())} rows, in {seconds:.1f} s.",
    }


def _databases(deploy: Deploy, archive: Archive, one: Listed, about: About) -> dict[str, int]:
    """Restore each database to a scratch one; table -> rows, of all of them."""
    incoming = archive.folder / INCOMING
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(mode=0o700)
    found: dict[str, int] = {}
    try:
        backups = Backups(incoming)
        for backup in about.databases:
            fetch(archive.restic, one, backup, backups)
            # Nothing else may run commands of the release meanwhile.
            with deploy.holding("drill"):
                # A deploy that was waited for may have brought another release.
                found |= _restored(deploy, served(deploy), backups, backup)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return found


def _restored(deploy: Deploy, manifest: Manifest, backups: Backups, backup: Backup) -> dict[str, int]:
    with backups.open(backup) as source:
        rows = deploy.schema.verify(manifest, backup.service, source)
    if differences := compare(backup.rows, rows):
        raise UnhealthyError(
            f"The backup {backup.id} of {backup.service} was restored, and does not hold the rows that it was taken "
            "with.",
            "Take another backup, and look what restores it: migrate.backup.verify.",
            details="\n".join(map(str, differences)),
        )
    with backups.open(backup) as source:
        revision = deploy.schema.revision_in(manifest, backup.service, source)
    if revision not in ("", backup.revision):
        raise UnhealthyError(
            f"The backup {backup.id} of {backup.service} is at {revision}, and was taken at {backup.revision}.",
            "Take another backup.",
        )
    return rows


def _volumes(restic: Restic, one: Listed, about: About) -> None:
    """Read each file of its volumes, which has each piece of it compared with its checksum."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no file of any folder
        for folder in about.volumes.values():
            restic.read(one.snapshot, folder, nowhere)
