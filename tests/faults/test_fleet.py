"""Several machines behind an edge tier: whatever fails in the middle, users are served and the next run mends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.faults.fleet import Fleet
from tests.faults.lab import Machine, wait_for
from tests.faults.registry import Registry

pytestmark = pytest.mark.faults

QUICK = {
    "path": "/",
    "json": {"status": "ready"},
    "version": "version",
    "start_interval": 0.1,
    "start_period": 3,
}
"""A health contract that soon gives up on a release that does not start."""
WHOLE = "Every host serves what it served before."
SPLIT = "and the hosts are not all on one release."


def test_a_fleet_takes_a_release_batch_by_batch(fleet: Fleet) -> None:
    old, new = fleet.other()
    before = fleet.current()
    with fleet.load() as load:
        play = fleet.deploy(new).ok()
    assert load.seen.undisturbed().versions == [old, new]
    fleet.serves(new)
    after = fleet.current()
    assert play.table == dict.fromkeys(("app1", "app2", "app3"), (before, after, "deployed"))
    began = [fleet.last(machine)["phases"].keys() for machine in fleet.lab.group("app")]
    assert began == [{"stage", "activate"}] * 3
    assert fleet.deploy(new).ok().changed == 0


@pytest.mark.parametrize("failing", ["app1", "app2", "app3"])
def test_a_batch_of_three_fails(failing: str, fleet: Fleet) -> None:
    old, new = fleet.other()
    before = fleet.current()
    with fleet.load() as load:
        with fleet.not_ready(new, fleet.lab.machines[failing]):
            play = fleet.deploy(new, health=QUICK).failed(f"it failed on {failing}. {WHOLE}")
        fleet.serves(old)
        fleet.goes_on(new, health=QUICK)
    load.seen.undisturbed()
    assert play.code == 2
    names = [machine.name for machine in fleet.lab.group("app")]
    position = names.index(failing)
    results = ["returned"] * position + ["failed"] + ["not reached"] * (2 - position)
    assert play.table == {name: (before, before, result) for name, result in zip(names, results, strict=True)}, (
        play.output
    )
    for name, result in zip(names, results, strict=True):
        failed = fleet.history(fleet.lab.machines[name])[-2]
        told = {"returned": "return", "failed": "activate", "not reached": "stage"}[result]
        assert list(failed["phases"])[-1] == told, failed
    if position:
        assert fleet.history(fleet.app1)[-2]["reason"] == f"It failed on {failing}."


@dataclass(frozen=True)
class Moment:
    """When a controller is killed: in a verb of the engine on a machine, once something is so."""

    verb: str
    machine: int = 0
    env: dict[str, str] = field(default_factory=dict)
    is_so: Callable[[Fleet, Machine, str], bool] = lambda fleet, machine, before: True
    migrates: bool = False


def starting(_fleet: Fleet, machine: Machine, _before: str) -> bool:
    """The new release's container is there and has not passed its gate."""
    return len(machine.docker("ps", "--quiet", "--filter", "label=org.slipway.stack=app").split()) > 1


def switched(fleet: Fleet, machine: Machine, before: str) -> bool:
    """The machine's edge has moved traffic."""
    return fleet.has_moved_from(before, machine)


def migrating(_fleet: Fleet, machine: Machine, _before: str) -> bool:
    """The migration is at work in a container of its own."""
    return "-once" in machine.docker("ps", "--format", "{{.Names}}")


MOMENTS = {
    "taking the lease": Moment("hold"),
    "staging": Moment("stage", machine=1),
    "migrating": Moment("migrate", env={"MIGRATION": "hangs once"}, is_so=migrating, migrates=True),
    "starting the release on the first host": Moment("activate", env={"BEHAVIOUR": "slow"}, is_so=starting),
    "having moved traffic on the second": Moment("activate", machine=1, is_so=switched),
    "waiting with the third": Moment("hold", machine=2),
    "ending the run": Moment("verify", machine=2),
}


@pytest.mark.parametrize("moment", [pytest.param(moment, id=name) for name, moment in MOMENTS.items()])
def test_the_controller_is_killed_while(moment: Moment, fleet: Fleet) -> None:
    _, new = fleet.other()
    before = fleet.current()
    machine = fleet.lab.group("app")[moment.machine]
    change: dict[str, Any] = {"env": moment.env}
    if moment.migrates:
        # Each has a database of its own here, of which the first one's is migrated.
        change["migrate"] = {"dialect": "postgresql"}
    with fleet.load() as load:
        running = fleet.start_deploy(new, **change)
        wait_for(
            lambda: machine.engine(moment.verb) and moment.is_so(fleet, machine, before),
            f"the moment of {moment.verb}",
            every=0.005,
        )
        running.kill()
        fleet.goes_on(new)
    load.seen.undisturbed()


def test_the_controller_is_killed_and_another_release_comes_next(fleet: Fleet) -> None:
    old, new = fleet.other()
    before = fleet.current(fleet.app2)
    with fleet.load() as load:
        running = fleet.start_deploy(new)
        wait_for(lambda: fleet.has_moved_from(before, fleet.app2), "the switch of the second", every=0.005)
        running.kill()
        fleet.goes_on(old, env={"WHO": "the next one"})
    load.seen.undisturbed()


def test_a_host_reboots_while_the_release_starts_on_it(fleet: Fleet) -> None:
    old, new = fleet.other()
    before = fleet.current()
    known = len(fleet.history(fleet.app2))
    with fleet.load() as load:
        running = fleet.start_deploy(new, env={"BEHAVIOUR": "slow"})
        wait_for(lambda: fleet.app2.engine("activate"), "the activation on the second")
        time.sleep(1)
        fleet.app2.reboot()
        play = running.wait().failed(f"it failed on app2, {SPLIT}", "run the play again")
        assert {fleet.current(fleet.app1), fleet.current(fleet.app3)} == {before}
        assert fleet.version() == old
        fleet.goes_on(new)
    assert load.seen.failed == [], load.seen
    assert play.code == 2
    assert play.table["app1"] == (before, before, "returned")
    # Its Docker may end before its SSH does, and then the engine there can still note it, and maybe say so.
    assert play.table["app2"] in ((before, "?", "lost"), (before, "-", "failed"))
    assert play.table["app3"] == (before, before, "not reached")
    told = fleet.history(fleet.app2)[known:]
    assert any(run["result"] == "failed" or "recover" in run["phases"] for run in told), told


def test_what_the_first_host_cannot_stage_is_said_once_and_no_host_is_kept_from_the_next_run(fleet: Fleet) -> None:
    old, new = fleet.other()
    cannot_tell = {"dialect": "postgresql", "plan": ["/no/such/program"]}
    play = fleet.deploy(new, migrate=cannot_tell).failed("app could not tell where its schema is")
    assert play.output.count("FAILED") == 1, play.output
    fleet.serves(old)
    fleet.goes_on(new)


def test_a_host_that_nobody_reaches_in_the_middle_ends_what_it_began(fleet: Fleet) -> None:
    _, new = fleet.other()
    before = fleet.current()
    with fleet.load() as load:
        running = fleet.start_deploy(new)
        wait_for(lambda: fleet.app2.engine("activate"), "the activation on the second")
        with fleet.app2.cut_off():
            play = running.wait().failed(f"it failed on app2, {SPLIT}", "When app2 is back, run the play again")
            assert fleet.current(fleet.app1) == before
            wait_for(lambda: not fleet.app2.engine("activate"), "the end of what it was doing")
        fleet.goes_on(new)
    load.seen.undisturbed()
    assert play.table["app2"] == (before, "?", "lost")


def test_two_controllers_at_once_deploy_one_after_the_other(fleet: Fleet) -> None:
    old, new = fleet.other()
    with fleet.load() as load:
        both = [fleet.start_deploy(version, env={"WHO": "one of two"}) for version in (new, old)]
        for running in both:
            running.wait().ok()
    load.seen.undisturbed()
    whole = [fleet.history(machine)[-2:] for machine in fleet.lab.group("app")]
    assert len({tuple(run["run"] for run in runs) for runs in whole}) == 1, "on all hosts in the same order"
    fleet.serves(fleet.version())
    fleet.goes_on(new)


def test_of_two_controllers_that_do_not_wait_one_is_told_who_deploys(fleet: Fleet) -> None:
    old, new = fleet.other()
    with fleet.load() as load:
        both = [
            fleet.start_deploy(version, env={"WHO": "one of two"}, variables={"release_lease_wait": 0})
            for version in (new, old)
        ]
        first, second = sorted((running.wait() for running in both), key=lambda play: play.code)
    first.ok()
    second.failed("is deploying here (run ", "Wait until that run has ended")
    load.seen.undisturbed()
    fleet.serves(fleet.version())
    fleet.goes_on(new)


def test_the_registry_goes_away_after_the_first_batch(fleet: Fleet, registry: Registry) -> None:
    _, new = fleet.other()
    before = fleet.current()
    with fleet.load() as load:
        running = fleet.start_deploy(new, env={"WHO": "without a registry"})
        wait_for(lambda: fleet.has_moved_from(before), "the switch of the first", every=0.005)
        registry.mode = "away"
        running.wait().ok()
    load.seen.undisturbed()
    registry.mode = "serves"
    fleet.serves(new)
    assert fleet.deploy(new, env={"WHO": "without a registry"}).ok().changed == 0
