"""What an activation and a recovery do, for every state that a host can be in."""

from __future__ import annotations

import itertools

import pytest

from slipway.plan import Activation, Have, Recovery, plan_activation, plan_recovery, waves

OLD, NEW, OTHER = "0aaa", "0bbb", "0ccc"
WHOLE = frozenset({"api", "worker"})


def have(current: str | None, edge: str | None, **running: frozenset[str]) -> Have:
    return Have(current=current, edge=edge, running={f"0{name}": names for name, names in running.items()})


def activation(start: bool, switch: bool, point: bool, stop: tuple[str, ...], fall_back: str | None) -> Activation:
    return Activation(start=start, switch=switch, point=point, stop=stop, fall_back=fall_back)


@pytest.mark.parametrize(
    ("found", "routed", "expected"),
    [
        pytest.param(have(None, None), False, activation(True, True, True, (), None), id="the first release"),
        pytest.param(have(NEW, NEW, bbb=WHOLE), True, activation(False, False, False, (), None), id="it serves"),
        pytest.param(
            have(OLD, OLD, aaa=WHOLE), False, activation(True, True, True, (OLD,), OLD), id="another one serves"
        ),
        pytest.param(
            have(NEW, NEW, bbb=frozenset({"api"})),
            True,
            activation(True, False, False, (), None),
            id="a part of it has stopped",
        ),
        pytest.param(
            have(OLD, OLD, aaa=WHOLE, bbb=WHOLE),
            False,
            activation(False, True, True, (OLD,), OLD),
            id="it was started and a killed call never switched to it",
        ),
        pytest.param(
            have(OLD, NEW, aaa=WHOLE, bbb=WHOLE),
            True,
            activation(False, False, True, (OLD,), OLD),
            id="a killed call switched to it and stopped there",
        ),
        pytest.param(
            have(NEW, NEW, aaa=WHOLE, bbb=WHOLE),
            True,
            activation(False, False, False, (OLD,), None),
            id="the one before was never stopped",
        ),
        pytest.param(
            have(OLD, OTHER, aaa=WHOLE, ccc=WHOLE),
            False,
            activation(True, True, True, (OLD, OTHER), OTHER),
            id="a third one has the traffic",
        ),
        pytest.param(
            have(OLD, None), False, activation(True, True, True, (), OLD), id="the one before does not run any more"
        ),
    ],
)
def test_it_comes_to_serve_when(found: Have, routed: bool, expected: Activation) -> None:
    assert plan_activation(NEW, containers=WHOLE, routed=routed, have=found) == expected


def test_nothing_is_to_do_only_when_all_is_as_declared() -> None:
    assert plan_activation(NEW, containers=WHOLE, routed=True, have=have(NEW, NEW, bbb=WHOLE)).nothing
    assert not plan_activation(NEW, containers=WHOLE, routed=False, have=have(NEW, NEW, bbb=WHOLE)).nothing


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(have(None, None), Recovery(point=None, stop=()), id="nothing was there"),
        pytest.param(have(OLD, OLD, aaa=WHOLE), Recovery(point=None, stop=()), id="nothing was left"),
        pytest.param(
            have(OLD, OLD, aaa=WHOLE, bbb=frozenset({"api"})),
            Recovery(point=None, stop=(NEW,)),
            id="a release that was started and not switched to is undone",
        ),
        pytest.param(
            have(OLD, NEW, aaa=WHOLE, bbb=WHOLE),
            Recovery(point=NEW, stop=()),
            id="a release that has the traffic is finished",
        ),
        pytest.param(
            have(OLD, OLD, bbb=WHOLE),
            Recovery(point=None, stop=()),
            id="nothing is stopped while the one before does not run",
        ),
    ],
)
def test_what_a_killed_run_left_is_finished_or_undone(found: Have, expected: Recovery) -> None:
    assert plan_recovery(found) == expected


def test_whatever_the_state_the_plan_leads_to_one_release_that_serves_and_then_to_nothing() -> None:
    releases = (OLD, NEW, OTHER)
    parts = (None, frozenset({"api"}), WHOLE)
    states = itertools.product([None, *releases], [None, *releases], itertools.product(parts, repeat=3), [False, True])
    for current, edge, up, routed in states:
        running = {release: names for release, names in zip(releases, up, strict=True) if names}
        plan = plan_activation(
            NEW, containers=WHOLE, routed=routed, have=Have(current=current, edge=edge, running=running)
        )
        assert NEW not in plan.stop
        assert plan.fall_back != NEW
        after = {release: names for release, names in running.items() if release not in plan.stop}
        after |= {NEW: WHOLE} if plan.start else {}
        assert after == {NEW: WHOLE}
        settled = Have(current=NEW if plan.point else current, edge=NEW, running=after)
        assert plan_activation(NEW, containers=WHOLE, routed=True, have=settled).nothing


def test_a_recovery_never_stops_what_the_edge_or_current_names() -> None:
    releases = (OLD, NEW, OTHER)
    states = itertools.product([None, *releases], [None, *releases], itertools.product([None, WHOLE], repeat=3))
    for current, edge, up in states:
        running = {release: names for release, names in zip(releases, up, strict=True) if names}
        plan = plan_recovery(Have(current=current, edge=edge, running=running))
        serves = edge if edge in running else current
        assert serves not in plan.stop
        assert plan.point in (None, edge)


@pytest.mark.parametrize(
    ("needs", "order"),
    [
        ({}, []),
        ({"api": [], "web": []}, [{"api", "web"}]),
        ({"web": ["api"], "api": []}, [{"api"}, {"web"}]),
        ({"web": ["api", "auth"], "auth": ["api"], "api": []}, [{"api"}, {"auth"}, {"web"}]),
        ({"web": ["api"]}, [{"web"}]),
    ],
)
def test_what_is_needed_is_started_first(needs: dict[str, list[str]], order: list[set[str]]) -> None:
    assert waves(needs) == order


def test_services_that_need_each_other_have_no_order() -> None:
    with pytest.raises(ValueError, match=r"^api, web$"):
        waves({"db": [], "api": ["db", "web"], "web": ["api"]})
