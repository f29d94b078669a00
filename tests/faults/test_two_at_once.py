"""Two operators at the same time: one after the other, or not at all."""

from __future__ import annotations

import pytest

from tests.faults.environment import Environment
from tests.faults.lab import wait_for

pytestmark = pytest.mark.faults


@pytest.mark.core
def test_two_deploys_at_once_are_done_one_after_the_other(shop: Environment) -> None:
    with shop.load() as load:
        first = shop.start_deploy("1.1", env={"BEHAVIOUR": "slow"})
        wait_for(lambda: shop.machine.engine("activate"), "the first one at work")
        second = shop.start_deploy("1.0", env={"WHO": "the second"})
        first.wait().ok()
        second.wait().ok()
    assert load.seen.undisturbed().versions == ["1.0", "1.1"]
    assert load.seen.requests[-1].version == "1.0"
    assert [run["result"] for run in shop.history()] == ["good"] * 3
    shop.serves("1.0")
    shop.goes_on()


def test_one_that_does_not_want_to_wait_is_told_who_is_at_work(shop: Environment) -> None:
    with shop.load() as load:
        first = shop.start_deploy("1.1", env={"BEHAVIOUR": "slow"})
        wait_for(lambda: shop.machine.engine("activate"), "the first one at work")
        second = shop.deploy("1.0", env={"WHO": "the second"}, variables={"release_lease_wait": 0})
        second.failed("is deploying here (run ", "Wait until that run has ended")
        first.wait().ok()
    assert load.seen.undisturbed().versions == ["1.0", "1.1"]
    shop.serves("1.1")
    shop.goes_on("1.0")
