"""Killed with no warning, in every phase: one release serves all the while, and the next run puts all in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.faults.environment import Environment, Running
from tests.faults.lab import wait_for

pytestmark = pytest.mark.faults


@dataclass(frozen=True)
class Before:
    """What served before the deploy that is killed."""

    release: str
    containers: Sequence[str]

    @classmethod
    def on(cls, shop: Environment) -> Before:
        """As it is now."""
        release = shop.current()
        return cls(release, shop.containers(release))


@dataclass(frozen=True)
class Moment:
    """When something is killed: in a verb of the engine, once something is so."""

    verb: str
    version: str = "1.1"
    env: Mapping[str, str] = field(default_factory=dict)
    is_so: Callable[[Environment, Before], bool] = lambda shop, before: True
    soak_seconds: int = 1
    serves: tuple[str, ...] = ("1.0",)
    """Which version may answer once it is dead."""

    def start(self, shop: Environment) -> Running:
        """Start the deploy that will be killed."""
        return shop.start_deploy(
            self.version, env=dict(self.env), variables={"release_soak_seconds": self.soak_seconds}
        )


def staging(shop: Environment, _before: Before) -> bool:
    """It has the lease, so that there is something to be cut off from."""
    return bool(shop.lease()["caller"])


def starting(shop: Environment, _before: Before) -> bool:
    """The new release's container is there and has not passed its gate."""
    return len(shop.machine.docker("ps", "--quiet", "--filter", "label=org.slipway.stack=app").split()) > 1


def migrating(shop: Environment, _before: Before) -> bool:
    """The migration is at work in a container of its own."""
    return "-once" in shop.machine.docker("ps", "--format", "{{.Names}}")


def switched(shop: Environment, before: Before) -> bool:
    """The edge has moved traffic: it is told where to, and a moment later it goes there."""
    return shop.has_moved_from(before.release) and shop.version() != "1.0"


def ending(shop: Environment, before: Before) -> bool:
    """The old release has been stopped, and the run is about to end: it has not given its lease up."""
    moved = shop.has_moved_from(before.release)
    return moved and shop.have_ended(before.containers) and bool(shop.lease()["caller"])


MOMENTS = {
    "staging": Moment("stage", is_so=staging),
    "migrating": Moment("migrate", "2.0", {"MIGRATION": "hangs once"}, migrating),
    "starting the new release": Moment("activate", env={"BEHAVIOUR": "slow"}, is_so=starting),
    "having moved traffic": Moment("activate", is_so=switched, soak_seconds=5, serves=("1.1",)),
    "about to end": Moment("activate", is_so=ending, serves=("1.1",)),
}
CORE = "starting the new release"


def cases() -> list[Any]:
    """All moments, of which one is part of the core."""
    return [
        pytest.param(moment, id=name, marks=[pytest.mark.core] if name == CORE else [])
        for name, moment in MOMENTS.items()
    ]


@pytest.mark.parametrize("moment", cases())
def test_the_engine_is_killed_while(moment: Moment, shop: Environment) -> None:
    before = Before.on(shop)
    with shop.load() as load:
        running = moment.start(shop)
        shop.machine.kill_engine(moment.verb, lambda: moment.is_so(shop, before))
        running.wait().failed("The engine broke off")
        left = shop.version()
        shop.goes_on(moment.version)
    assert left in moment.serves
    load.seen.undisturbed()
    told = shop.history()
    assert any("cut off" in run["reason"] for run in told), told
    assert told[-1]["result"] == "good"


@pytest.mark.parametrize("moment", cases())
def test_the_controller_is_killed_while_the_host_is(moment: Moment, shop: Environment) -> None:
    before = Before.on(shop)
    with shop.load() as load:
        running = moment.start(shop)
        wait_for(
            lambda: shop.machine.engine(moment.verb) and moment.is_so(shop, before),
            f"the moment of {moment.verb}",
            every=0.005,
        )
        running.kill()
        wait_for(lambda: shop.machine.engine(moment.verb) is None, "the end of what the host was doing")
        left = shop.version()
        shop.goes_on(moment.version)
    assert left in ("1.0", moment.version)
    load.seen.undisturbed()
    assert shop.last()["result"] == "good"
