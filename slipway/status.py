"""What an operator sees of an environment: how it stands now, and what happened before."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import msgspec

from slipway.composefile import reading_folder
from slipway.daemon import Container, Daemon
from slipway.drift import Difference, look
from slipway.edge import Edge, Maintenance
from slipway.errors import PreflightError
from slipway.lease import Lease, Leases
from slipway.ledger import Entry, Ledger
from slipway.release import Instance, Manifest, instances
from slipway.revoked import Revoked, among, kept_secrets
from slipway.store import ARCHIVE_FILE, RESTORING_FILE, ROOT, Store, environments
from slipway.switch import Traffic, gate_of


class StatusRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Look at an environment. `schema` asks the database itself as well, which takes as long as its client does."""

    name: str
    schema: bool = False
    check: bool = False


class HistoryRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What happened to an environment: its `last` runs."""

    name: str
    last: Annotated[int, msgspec.Meta(ge=1)] = 20
    check: bool = False


class ServiceStatus(msgspec.Struct, kw_only=True):
    """How one container of a service stands."""

    state: str
    tag: str
    image: str
    url: str
    """Where it answers on this host; empty for a service that answers nobody."""
    since: str


class Holder(msgspec.Struct, kw_only=True):
    """The run that has the environment's lease."""

    run: str
    by: str
    what: str
    """The verb that it was called for last."""
    fence: int
    seconds: float
    """How long it still holds without another call; 0 during a call, which may take its time."""


class Status(msgspec.Struct, kw_only=True):
    """How an environment stands. `complaint` is empty when it is healthy."""

    name: str
    environment: str
    release: str
    schema: str
    complaint: str
    services: dict[str, ServiceStatus]
    """Container by its name in Compose (`api`, and `api-2` for a second replica) -> how it stands."""
    differences: list[Difference] = []
    """What is not as the release declares it."""
    lease: Holder | None = None
    maintenance: Maintenance | None = None
    warnings: list[str] = []
    """What is to be known of its backups."""
    revoked: dict[str, list[str]] = {}
    """Release that is kept -> names of its secrets that were revoked: a rollback there uses today's."""

    @property
    def healthy(self) -> bool:
        """Whether it keeps its promises."""
        return not self.complaint

    @property
    def as_declared(self) -> bool:
        """Whether it is healthy and just what its release says."""
        return self.healthy and not self.differences


class Run(msgspec.Struct, kw_only=True):
    """One run of the ledger, its phases folded into one line of history."""

    at: str
    """When its first phase ended: UTC, ISO 8601."""
    run: str
    by: str
    verb: str
    release: str
    result: str
    phases: dict[str, float]
    """Phase -> seconds."""
    parts: dict[str, float] = {}
    """What activating consisted of (start, switch, soak, drain, stop) -> seconds."""
    schema_before: str = ""
    schema_after: str = ""
    """The revision that it served on; without one before, nothing was migrated."""
    unavailable_ms: int | None = None
    """For how long clients were not served; None where that was not measured."""
    reason: str = ""


def status(name: str, root: Path = ROOT, *, ask_schema: bool = False) -> Status:
    """Look at an environment; one that has never served is said to be unhealthy for that reason.

    `ask_schema` asks the database itself for its revision instead of taking the ledger's word for it. Raises
    :class:`PreflightError` where nothing of that name was ever deployed.
    """
    store = _existing(name, root)
    lease = Leases(store.folder).read()
    found = Status(
        name=name,
        environment="",
        release="",
        schema="",
        complaint="no release has served yet",
        services={},
        lease=_holder(lease),
        maintenance=Traffic(store, Edge(root)).maintenance(),
        revoked=_revoked(store),
        warnings=_warnings(store),
    )
    if (current := store.current()) is None:
        return found
    manifest = store.manifest(current)
    with reading_folder(store.path(current)) as document:
        daemon = Daemon()
        gate = gate_of(store, daemon, manifest)
        containers = gate.containers()
        found.environment = manifest.environment
        found.release = current
        found.schema = Ledger(store.folder).schema()
        found.complaint = next(iter(gate.look().values()), "")
        found.services = {
            one.name: _service(one, manifest, containers.get(one.name)) for one in instances(manifest.services)
        }
        found.differences = (
            _unfinished(lease)
            + _half_restored(store, found.lease)
            + look(store, daemon, manifest, document, at_work=found.lease is not None, ask_schema=ask_schema)
        )
    return found


def _existing(name: str, root: Path) -> Store:
    store = Store(name, root)
    if not store.exists():
        raise PreflightError(
            f"There is no environment {name} on this host.",
            f"This host has {', '.join(environments(root)) or 'none yet'}.",
        )
    return store


def _service(one: Instance, manifest: Manifest, container: Container | None) -> ServiceStatus:
    host_port = manifest.services[one.service].host_port
    return ServiceStatus(
        state=f"{container.state} {container.health}".strip() if container else "absent",
        tag=manifest.tags[one.service],
        image=manifest.images[one.service],
        url=f"http://127.0.0.1:{host_port}" if host_port else "",
        since=container.started_at[:19] if container else "",
    )


def _holder(lease: Lease) -> Holder | None:
    if not lease.run or lease.over:
        return None
    seconds = 0.0 if lease.caller else round(lease.expires - time.time(), 1)
    return Holder(run=lease.run, by=lease.by, what=lease.what, fence=lease.fence, seconds=seconds)


def _revoked(store: Store) -> dict[str, list[str]]:
    revoked = Revoked(store.folder)
    if not revoked.read():
        return {}
    values = revoked.fingerprints()
    found = {release: among(secrets, values) for release, secrets in kept_secrets(store).items()}
    return {release: names for release, names in found.items() if names}


def _warnings(store: Store) -> list[str]:
    if not (store.folder / ARCHIVE_FILE).exists():
        return []
    from slipway.archive.settings import Archive, warnings  # noqa: PLC0415 - for environments that have one

    return warnings(Archive(store), Ledger(store.folder).entries())


def _unfinished(lease: Lease) -> list[Difference]:
    """A run that was killed: the next call finishes or undoes what it began."""
    if not lease.unfinished:
        return []
    return [Difference("lease", f"run {lease.run} of {lease.by}", "ended", f"broke off during {lease.what}")]


def _half_restored(store: Store, holder: Holder | None) -> list[Difference]:
    """A restore that was killed: the data may be half of one state and half of another until it is repeated."""
    path = store.folder / RESTORING_FILE
    if holder or not path.exists():
        return []
    backup = msgspec.json.decode(path.read_bytes())["backup"]
    return [Difference("data", f"restore of {backup}", "ended", "broke off")]


def history(name: str, root: Path = ROOT) -> list[Run]:
    """Fold the ledger into runs, oldest first. Raises :class:`PreflightError` where there is no such environment."""
    runs: dict[tuple[str, str, str], Run] = {}
    for entry in Ledger(_existing(name, root).folder).entries():
        key = (entry.run, entry.release, _verb(entry))
        run = runs.get(key)
        if run is None:
            run = runs[key] = Run(
                at=entry.at,
                run=entry.run,
                by=entry.by,
                verb=_verb(entry),
                release=entry.release,
                result="",
                phases={},
            )
        run.phases[entry.phase] = round(run.phases.get(entry.phase, 0.0) + entry.seconds, 3)
        for part, seconds in entry.phases.items():
            run.parts[part] = round(run.parts.get(part, 0.0) + seconds, 3)
        run.schema_before = run.schema_before or entry.schema_before
        run.schema_after = entry.schema_after or run.schema_after
        if entry.unavailable_ms is not None:
            run.unavailable_ms = (run.unavailable_ms or 0) + entry.unavailable_ms
        run.result = entry.result
        run.reason = entry.reason
    return list(runs.values())


def _verb(entry: Entry) -> str:
    return "deploy" if entry.phase in ("stage", "migrate", "activate") else entry.phase
