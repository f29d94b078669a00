"""What an operator sees of an environment: how it stands now, and what happened before."""

from __future__ import annotations

from pathlib import Path

import msgspec

from slipway.daemon import Daemon
from slipway.errors import PreflightError
from slipway.gate import Gate
from slipway.ledger import Entry, Ledger
from slipway.store import ROOT, Store, environments


class NameRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A request that only names the environment."""

    name: str
    check: bool = False


class ServiceStatus(msgspec.Struct, kw_only=True):
    """How one service stands."""

    state: str
    tag: str
    image: str
    url: str
    """Where it answers on this host; empty for a service that answers nobody."""
    since: str


class Status(msgspec.Struct, kw_only=True):
    """How an environment stands. `complaint` is empty when it is healthy."""

    name: str
    environment: str
    release: str
    schema: str
    complaint: str
    services: dict[str, ServiceStatus]

    @property
    def healthy(self) -> bool:
        """Whether it serves as declared."""
        return not self.complaint


class Run(msgspec.Struct, kw_only=True):
    """One run of the ledger, its phases folded into one line of history."""

    at: str
    run: str
    by: str
    verb: str
    release: str
    result: str
    phases: dict[str, float]
    """Phase -> seconds."""
    reason: str = ""


def status(name: str, root: Path = ROOT) -> Status:
    """Look at an environment; one that has never served is said to be unhealthy for that reason.

    Raises :class:`PreflightError` where nothing of that name was ever deployed.
    """
    store = Store(name, root)
    if not store.exists():
        raise PreflightError(
            f"There is no environment {name} on this host.",
            f"It has {', '.join(environments(root)) or 'none yet'}.",
        )
    current = store.current()
    if current is None:
        return Status(
            name=name,
            environment="",
            release="",
            schema="",
            complaint="no release has served yet",
            services={},
        )
    manifest = store.manifest(current)
    gate = Gate(manifest, Daemon(), lambda text: store.project(manifest).redacted(text))
    containers = gate.containers()
    services = {}
    for service, spec in manifest.services.items():
        container = containers.get(service)
        services[service] = ServiceStatus(
            state=f"{container.state} {container.health}".strip() if container else "absent",
            tag=manifest.tags[service],
            image=manifest.images[service],
            url=f"http://127.0.0.1:{spec.host_port}" if spec.host_port else "",
            since=container.started_at[:19] if container else "",
        )
    return Status(
        name=name,
        environment=manifest.environment,
        release=current,
        schema=Ledger(store.folder).schema(),
        complaint=gate.look(),
        services=services,
    )


def history(name: str, root: Path = ROOT) -> list[Run]:
    """Fold the ledger into runs, oldest first."""
    runs: dict[tuple[str, str], Run] = {}
    for entry in Ledger(Store(name, root).folder).entries():
        key = (entry.run, entry.release)
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
        run.result = entry.result
        run.reason = entry.reason
    return list(runs.values())


def _verb(entry: Entry) -> str:
    return entry.phase if entry.phase in ("rollback", "stop") else "deploy"
