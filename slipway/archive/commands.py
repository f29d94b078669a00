"""What people and Ansible type of it: `slipway backup`, `backups`, `drill` and `restore`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from slipway.archive.backup import Listed, listed, size_text, take
from slipway.archive.drill import drill
from slipway.archive.restic import opened
from slipway.archive.restore import Restore, Wanted
from slipway.archive.settings import Archive
from slipway.archive.target import Target
from slipway.backups import span
from slipway.display import table
from slipway.errors import UsageError
from slipway.ledger import Ledger
from slipway.store import Store

if TYPE_CHECKING:
    from slipway.deploy import Deploy


class Source(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Another environment's archive, for a restore: on stdin of `slipway restore --source`."""

    name: str
    host: str
    """Which of its hosts has the database."""
    target: Target
    check: bool = False


def run(deploy: Deploy, options: argparse.Namespace, read: Callable[[type[Source]], Source]) -> dict[str, Any]:
    """Do it; what there is to answer, with a sentence for people in `msg`. `read` reads a request from stdin."""
    match options.verb:
        case "backup":
            return take(deploy)
        case "drill":
            return drill(deploy, backup=options.backup)
        case _:
            return _restore(deploy, options, read)


def _restore(deploy: Deploy, options: argparse.Namespace, read: Callable[[type[Source]], Source]) -> dict[str, Any]:
    if options.step == "open":
        return Restore(deploy).open()
    if options.step == "close":
        return Restore(deploy).close(options.backup)
    wanted = Wanted(
        backup=options.backup,
        at="" if options.to == "latest" else options.to,
        beside=options.beside,
        release=options.release,
        confirmed=options.confirm_data_loss,
        keep=not options.no_keep,
        database=not options.no_database,
        stay_closed=options.stay_closed,
        as_it_is=options.as_it_is,
    )
    if options.source:
        source = read(Source)
        with opened(source.target, source.name, source.host) as restic:
            return _by(Restore(deploy, restic, source.name), options, wanted)
    archive = Archive(deploy.store)
    if archive.settings.hosts > 1 and not options.json:
        raise UsageError(
            f"{deploy.store.name} has {archive.settings.hosts} app hosts, and all of them have to stop for a restore.",
            "Use playbooks/restore.yml.",
        )
    return _by(Restore(deploy), options, wanted)


def _by(restore: Restore, options: argparse.Namespace, wanted: Wanted) -> dict[str, Any]:
    return restore.choose(wanted) if options.step == "choose" else restore.run(wanted)


def all_backups(store: Store) -> list[Listed]:
    """What the archive of an environment has, newest first."""
    return listed(Archive(store).restic, Ledger(store.folder))


def backups_text(found: Sequence[Listed], now: datetime | None = None) -> str:
    """The answer of `slipway backups`."""
    if not found:
        return "The archive is empty: slipway backup makes the first one."
    at = now or datetime.now(UTC)

    def ago(text: str) -> str:
        return f"{span((at - datetime.fromisoformat(text)).total_seconds())} ago"

    rows = [
        [
            one.id,
            ago(one.at),
            one.host,
            " ".join([*["database"] * one.database, *one.volumes]) or "-",
            size_text(one.size),
            one.revision or "-",
            one.release[:8],
            _verified(one, ago),
        ]
        for one in found
    ]
    return table(["BACKUP", "TAKEN", "HOST", "HOLDS", "SIZE", "SCHEMA", "RELEASE", "LAST VERIFIED"], rows)


def _verified(one: Listed, ago: Callable[[str], str]) -> str:
    if not one.verified:
        return "never"
    return f"{ago(one.verified)}, {'from the archive' if one.drilled else 'before it left'}"
