"""Decisions as data: what has to happen on a host so that a release serves. No I/O, so a table can test it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set

import msgspec


class Have(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has of an environment now."""

    current: str | None
    """The release that `current` names."""
    edge: str | None
    """The release that the edge sends traffic to."""
    running: Mapping[str, Set[str]]
    """Release -> names of its containers that run."""


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """What an activation does, in this order: start, switch, point, stop."""

    start: bool
    """Whether the wanted release has to be started."""
    switch: bool
    """Whether the edge has to be told."""
    point: bool
    """Whether `current` has to be moved."""
    stop: tuple[str, ...]
    """Releases that run and must not."""
    fall_back: str | None
    """The release to return to when the wanted one fails."""

    @property
    def nothing(self) -> bool:
        """Whether the host is already as declared."""
        return not (self.start or self.switch or self.point or self.stop)


def plan_activation(want: str, *, containers: Set[str], routed: bool, have: Have) -> Activation:
    """Decide how `want`, which consists of `containers`, comes to serve.

    `routed` says whether the edge already sends traffic to it as declared, or has nothing to send. The answer holds
    for every state that an interrupted call can leave behind.
    """
    before = have.edge if have.edge in have.running and have.edge != want else have.current
    return Activation(
        start=not containers <= have.running.get(want, set()),
        switch=not routed,
        point=have.current != want,
        stop=tuple(sorted(have.running.keys() - {want})),
        fall_back=before if before != want else None,
    )


def waves(needs: Mapping[str, Collection[str]]) -> list[set[str]]:
    """In which order services are started: those of a wave at once, when all that they need is healthy.

    `needs` maps each service to those it needs; needs outside the mapping are met already. Raises ValueError where
    services need each other.
    """
    left = {name: {other for other in others if other in needs} for name, others in needs.items()}
    order: list[set[str]] = []
    while left:
        wave = {name for name, others in left.items() if not others & left.keys()}
        if not wave:
            raise ValueError(", ".join(sorted(left)))
        order.append(wave)
        left = {name: others for name, others in left.items() if name not in wave}
    return order


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What a call does first with what a run left unfinished that is no more."""

    point: str | None
    """The release whose switch is finished: the edge already sends traffic to it."""
    stop: tuple[str, ...]
    """Releases that had been started and were never switched to."""


def plan_recovery(have: Have) -> Recovery:
    """Decide by how far it came: switched is finished, not switched is undone. What serves is never stopped."""
    switched = have.edge if have.edge in have.running and have.edge != have.current else None
    serves = switched or have.current
    stop = tuple(sorted(have.running.keys() - {serves})) if serves in have.running else ()
    return Recovery(point=switched, stop=stop if not switched else ())
