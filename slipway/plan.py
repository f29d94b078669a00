"""Decisions as data: what has to happen on a host so that a release serves. No I/O, so a table can test it."""

from __future__ import annotations

from collections.abc import Collection

import msgspec


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """What an activation does, in this order: stop, start, point."""

    stop: tuple[str, ...]
    """Releases whose containers run and must not."""
    start: bool
    """Whether the wanted release has to be started."""
    point: bool
    """Whether `current` has to be moved."""
    fall_back: str | None
    """The release to return to when the gate fails."""

    @property
    def nothing(self) -> bool:
        """Whether the host is already as declared."""
        return not (self.stop or self.start or self.point)


def plan_activation(*, want: str, current: str | None, whole: Collection[str], running: Collection[str]) -> Activation:
    """Decide how `want` comes to serve.

    `whole` are the releases of which every service runs, `running` those of which any container runs. The answer
    holds for every state that an interrupted call can leave behind.
    """
    return Activation(
        stop=tuple(sorted(set(running) - {want})),
        start=want not in whole,
        point=current != want,
        fall_back=current if current != want else None,
    )
