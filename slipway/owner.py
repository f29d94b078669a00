"""Which inventory an environment on this host belongs to.

A name is unique on a host, and two inventories that share one would take turns to replace each other's application. So
every release says which inventory it comes from: by the environment, and by a fingerprint that only the inventory's
`release_fingerprint_key` makes. What another inventory has deployed is left alone, unless that is meant.
"""

from __future__ import annotations

import msgspec

from slipway.errors import PreflightError
from slipway.release import Manifest
from slipway.store import Store


class Owner(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """An inventory, as a host knows it."""

    environment: str
    fingerprint: str
    """Of the environment's name, by the inventory's key (`slipway.release.owner`)."""

    @classmethod
    def of(cls, manifest: Manifest) -> Owner:
        """The inventory that a release comes from."""
        return cls(environment=manifest.environment, fingerprint=manifest.owner)


def refuse_another(store: Store, owner: Owner) -> None:
    """Raise :class:`PreflightError` where what serves, or else any release, comes from another inventory than `owner`.

    Releases of a kit that did not note it yet belong to whoever comes.
    """
    current = store.current()
    ids = [current] if current else store.ids()
    for manifest in (store.manifest(release_id) for release_id in ids):
        theirs = Owner.of(manifest)
        if "" in (theirs.fingerprint, owner.fingerprint) or theirs == owner:
            continue
        whose = (
            f"the inventory of {theirs.environment}, and this one is that of {owner.environment}"
            if theirs.environment != owner.environment
            else f"another inventory of {owner.environment}, with another release_fingerprint_key"
        )
        raise PreflightError(
            f"There is an environment {store.name} on this host already, which belongs to {whose}.",
            "Give one of the two another slipway_name; if this inventory is to take it over, or its key was changed on "
            "purpose, run the play again with -e release_take_over=true.",
        )
