"""What an activation does, over every state that an interrupted call can leave behind."""

from __future__ import annotations

import itertools

import pytest

from slipway.plan import Activation, plan_activation

OLD, NEW, LOST = "old", "new", "lost"


@pytest.mark.parametrize(
    ("state", "current", "whole", "running", "stop", "start", "point", "fall_back"),
    [
        ("the first deploy on a host", None, [], [], (), True, True, None),
        ("a new release beside one that serves", OLD, [], [OLD], (OLD,), True, True, OLD),
        ("nothing to change", NEW, [NEW], [NEW], (), False, False, None),
        ("killed before the old one was stopped", OLD, [], [OLD], (OLD,), True, True, OLD),
        ("killed between stop and start", OLD, [], [], (), True, True, OLD),
        ("killed while half of the services had started", OLD, [], [NEW], (), True, True, OLD),
        ("killed before the new one was pointed at", OLD, [NEW], [NEW], (), False, True, OLD),
        ("killed on the first deploy, after the start", None, [NEW], [NEW], (), False, True, None),
        ("killed while it returned: both run", OLD, [NEW], [OLD, NEW], (OLD,), False, True, OLD),
        ("stopped by hand", NEW, [], [], (), True, False, None),
        ("half of it stopped by hand", NEW, [], [NEW], (), True, False, None),
        ("the machine came back with an older one too", NEW, [NEW], [NEW, LOST], (LOST,), False, False, None),
        ("two older ones run", OLD, [], [OLD, LOST], (LOST, OLD), True, True, OLD),
    ],
)
def test_an_activation_ends_well_from(
    state: str,
    current: str | None,
    whole: list[str],
    running: list[str],
    stop: tuple[str, ...],
    start: bool,
    point: bool,
    fall_back: str | None,
) -> None:
    plan = plan_activation(want=NEW, current=current, whole=whole, running=running)
    assert plan == Activation(stop=stop, start=start, point=point, fall_back=fall_back)


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
