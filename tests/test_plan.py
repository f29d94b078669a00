"""What an activation does, over every state that an interrupted call can leave behind."""

from __future__ import annotations

import itertools

import pytest

from slipway.plan import Activation, plan_activation

OLD, NEW, LOST = "old", "new", "lost"


def wanted(*stop: str, start: bool = False, point: bool = False, fall_back: str | None = None) -> Activation:
    return Activation(stop=stop, start=start, point=point, fall_back=fall_back)


@pytest.mark.parametrize(
    ("current", "whole", "running", "plan"),
    [
        pytest.param(None, [], [], wanted(start=True, point=True), id="the first deploy on a host"),
        pytest.param(OLD, [], [OLD], wanted(OLD, start=True, point=True, fall_back=OLD), id="an old release serves"),
        pytest.param(NEW, [NEW], [NEW], wanted(), id="nothing to change"),
        pytest.param(OLD, [], [], wanted(start=True, point=True, fall_back=OLD), id="killed between stop and start"),
        pytest.param(OLD, [], [NEW], wanted(start=True, point=True, fall_back=OLD), id="killed while half had started"),
        pytest.param(OLD, [NEW], [NEW], wanted(point=True, fall_back=OLD), id="killed before the new one was current"),
        pytest.param(None, [NEW], [NEW], wanted(point=True), id="killed on the first deploy, after the start"),
        pytest.param(OLD, [NEW], [OLD, NEW], wanted(OLD, point=True, fall_back=OLD), id="killed on the way back"),
        pytest.param(NEW, [], [], wanted(start=True), id="stopped by hand"),
        pytest.param(NEW, [], [NEW], wanted(start=True), id="half of it stopped by hand"),
        pytest.param(NEW, [NEW], [NEW, LOST], wanted(LOST), id="the machine came back with an older one too"),
        pytest.param(
            OLD, [], [OLD, LOST], wanted(LOST, OLD, start=True, point=True, fall_back=OLD), id="two older ones run"
        ),
    ],
)
def test_an_activation_ends_well_when(
    current: str | None, whole: list[str], running: list[str], plan: Activation
) -> None:
    assert plan_activation(want=NEW, current=current, whole=whole, running=running) == plan


def test_whatever_the_state_the_plan_leads_to_one_release_that_serves_and_then_to_nothing() -> None:
    releases = (OLD, NEW, LOST)
    states = itertools.product([None, *releases], itertools.product([False, True], repeat=3), [False, True])
    for current, runs, new_is_whole in states:
        running = {release for release, up in zip(releases, runs, strict=True) if up}
        whole = {NEW} & running if new_is_whole else set()
        plan = plan_activation(want=NEW, current=current, whole=whole, running=running)
        assert NEW not in plan.stop
        assert plan.fall_back != NEW
        after = (running - set(plan.stop)) | ({NEW} if plan.start else set())
        assert after == {NEW}
        settled = plan_activation(want=NEW, current=NEW if plan.point else current, whole=after, running=after)
        assert settled.nothing
