"""Forgetting: which releases of an environment are still kept, and the removal of the others with all that is theirs.

A release goes in this order: containers, networks, images, folder. A call that is killed leaves its folder, by which
the next one finds what is left to do. Nothing is removed but by the kit's labels or by a reference that stands in the
manifest of a release that goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slipway.daemon import LABEL_PROJECT, Daemon
from slipway.errors import PreflightError
from slipway.ledger import Ledger
from slipway.release import LABEL_NAME, LABEL_RELEASE, project_of
from slipway.store import Store, environments

KEEP = 5
"""Good releases that are kept where nobody says otherwise."""


def plan_prune(
    *, ids: Sequence[str], good: Sequence[str], current: str | None, previous: str | None, keep: int
) -> list[str]:
    """Decide which releases go.

    `ids` are all releases on the host, those that a run dealt with last first; `good` those that served, newest
    first. The newest `keep` good ones stay, and always the current one and the one before it. One that never served
    pushes nothing out: it goes once a good one is newer, and stays as long as it may still be looked into.
    """
    here = [release for release in good if release in ids]
    newest_good = min((ids.index(release) for release in here), default=len(ids))
    kept = {*here[:keep], *ids[:newest_good], current, previous}
    return [release for release in ids if release not in kept]


def prune(store: Store, ledger: Ledger, daemon: Daemon, *, keep: int, root: Path) -> dict[str, list[str]]:
    """Remove what :func:`plan_prune` says, and the images that nothing else on this host needs.

    The caller holds the environment's lock. The answer names what went: `removed`, releases, and `removed_images`. A
    release whose network is in use by something that is not the kit's stays until that has gone.
    """
    ids, good, current = _newest_first(store, ledger), ledger.good_releases(), store.current()
    previous = next((release for release in good if release in ids and release != current), None)
    going = plan_prune(ids=ids, good=good, current=current, previous=previous, keep=keep)
    going = [release for release in going if _without_containers(store.name, release, daemon)]
    if not going:
        return {"removed": [], "removed_images": []}
    images = _remove_images(store, going, daemon, root)
    for release in going:
        store.discard(release)
    return {"removed": going, "removed_images": images}


def _newest_first(store: Store, ledger: Ledger) -> list[str]:
    """The releases on this host by the run that dealt with each last; one that no run tells of is the oldest."""
    told = list(dict.fromkeys(entry.release for entry in reversed(ledger.entries())))
    here = store.ids()
    return [release for release in told if release in here] + [release for release in here if release not in told]


def _without_containers(name: str, release: str, daemon: Daemon) -> bool:
    daemon.remove_containers({LABEL_NAME: name, LABEL_RELEASE: release})
    return daemon.remove_networks({LABEL_NAME: name, LABEL_PROJECT: project_of(name, release)})


def _remove_images(store: Store, going: Sequence[str], daemon: Daemon, root: Path) -> list[str]:
    try:
        theirs = {image for release in going for image in store.manifest(release).images.values()}
        needed = {
            image
            for other in (Store(name, root) for name in environments(root))
            for release in other.ids()
            if other.name != store.name or release not in going
            for image in other.manifest(release).images.values()
        }
    except PreflightError:
        # A release of this host cannot be read, so nobody knows what it needs.
        return []
    in_use = daemon.images_in_use()
    found = {image: daemon.image(image) for image in sorted(theirs - needed)}
    free = [image for image, body in found.items() if body is not None and body["Id"] not in in_use]
    return [image for image in free if daemon.remove_image(image)]
