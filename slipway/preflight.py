"""The half of preflight that looks at the host. Nothing is changed."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from slipway import ports
from slipway.daemon import Daemon
from slipway.edge import Edge
from slipway.errors import PreflightError
from slipway.owner import Owner, refuse_another
from slipway.registries import Login, Logins
from slipway.store import ARCHIVE_FILE, ROOT, Store

MIB = 1024 * 1024
CLOCK_SECONDS = 60.0
"""How far a host's clock may be from the controller's."""


class Image(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An image to deploy: a repository with a tag, or with a digest that has been looked up before."""

    repository: str
    tag: str = ""
    digest: str = ""


class PreflightRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a host is asked before a deploy."""

    name: str
    images: dict[str, Image]
    ports: dict[str, int] = {}
    networks: list[str] = []
    """Networks of this host that services join."""
    logins: dict[str, Login] = {}
    min_free_mb: int
    archive: bool = False
    """Whether the inventory says that this host backs the environment up."""
    now: float | None = None
    """What the controller's clock says: seconds since 1970."""
    owner: Owner | None = None
    """The inventory that asks; None where it takes over what another one has deployed."""
    check: bool = False


def preflight(request: PreflightRequest, root: Path = ROOT) -> dict[str, Any]:
    """Check that a deploy could go through, and pin every image.

    The answer holds `digests`, service -> `sha256:…`. Raises :class:`PreflightError` for the first thing that is in
    the way: clock, daemon, disk, another inventory, ports, networks, registry.
    """
    if request.now is not None:
        _clock(request.now)
    daemon = Daemon()
    store = Store(request.name, root)
    _disk(daemon.root(), request.min_free_mb)
    _disk(root, request.min_free_mb)
    if request.owner:
        refuse_another(store, request.owner)
    if request.archive and not request.check and not (store.folder / ARCHIVE_FILE).exists():
        raise PreflightError(
            "The inventory says where backups go, and this host does not know it: it has no archive.",
            "Run playbooks/archive.yml, or playbooks/site.yml, which has that in it.",
        )
    edge = Edge(root)
    if request.ports and not edge.exists():
        raise PreflightError(
            "There is no edge on this host that could send traffic to a release.",
            "Run playbooks/edge.yml for it.",
        )
    for service, port in request.ports.items():
        _port(daemon, edge, store.name, service, port)
    if missing := sorted(set(request.networks) - daemon.networks().keys()):
        raise PreflightError(
            f"There is no Docker network {missing[0]} on this host, which app_services has in networks.",
            f"Start what it belongs to, or create it: docker network create {missing[0]}.",
        )
    digests = {service: _digest(daemon, image, request.logins) for service, image in request.images.items()}
    return {"changed": False, "digests": digests, "current": store.current()}


def _clock(controller: float) -> None:
    """Leases, certificates and the history go by the clock."""
    ahead = time.time() - controller
    if abs(ahead) > CLOCK_SECONDS:
        raise PreflightError(
            f"The clock of this host is {_span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the controller's.",
            "Set the one that is wrong (timedatectl set-ntp true keeps it right), and run the play again.",
        )


def _span(seconds: float) -> str:
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        # The way of the request takes its time too.
        if seconds >= 0.99 * size:
            count = round(seconds / size)
            return f"{count} {name}{'s' if count > 1 else ''}"
    return f"{seconds:.0f} seconds"


def _disk(folder: Path, min_free_mb: int) -> None:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free // MIB
    if free < min_free_mb:
        raise PreflightError(
            f"The disk is nearly full: {free} MB are free on the file system of {folder}, {min_free_mb} MB are needed.",
            "Free some space there, or lower release_min_free_mb, and run the play again.",
        )


def _port(daemon: Daemon, edge: Edge, name: str, service: str, port: int) -> None:
    answers = edge.answering(port)
    if answers == name:
        return
    containers = daemon.publishers(port)
    if answers:
        holder: str | None = f"the environment {answers}"
    elif containers:
        holder = f"the container {' and '.join(containers)}"
    else:
        holder = ports.listener(port)
    if holder:
        raise PreflightError(
            f"Port {port}, which {service} publishes, is taken by {holder}.",
            f"Stop it, or set app_services.{service}.publish to a free port.",
        )


def _digest(daemon: Daemon, image: Image, logins: Logins) -> str:
    if not image.digest:
        return daemon.registry_digest(f"{image.repository}:{image.tag}", logins)
    reference = f"{image.repository}@{image.digest}"
    if daemon.image(reference) is None:
        # Not here yet: then its registry must have it.
        daemon.registry_digest(reference, logins)
    return image.digest
