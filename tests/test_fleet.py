"""The order across hosts, and what an operator reads of it at the end."""

from __future__ import annotations

from typing import Any

import pytest

from slipway.errors import UsageError
from slipway.fleet import Outcome, Result, Size, batches, lease_seconds, outcome, summary

HOSTS = ["app1", "app2", "app3", "app4", "app5"]


@pytest.mark.parametrize(
    ("sizes", "cut"),
    [
        (1, [1, 1, 1, 1, 1]),
        (2, [2, 2, 1]),
        ("2", [2, 2, 1]),
        (10, [5]),
        ("100%", [5]),
        ("40%", [2, 2, 1]),
        ("1%", [1, 1, 1, 1, 1]),
        ([1, "50%"], [1, 2, 2]),
        ([1, 3], [1, 3, 1]),
        ([1, "100%"], [1, 4]),
        ([], [5]),
    ],
)
def test_hosts_are_cut_into_batches_as_serial_does_it(sizes: Size | list[Size], cut: list[int]) -> None:
    found = batches(HOSTS, sizes)
    assert [len(batch) for batch in found] == cut
    assert [host for batch in found for host in batch] == HOSTS


@pytest.mark.parametrize("size", [0, "0%", "half", "-1", "", "%"])
def test_a_size_that_is_none_is_refused_by_name(size: Size) -> None:
    with pytest.raises(UsageError, match=f"release_serial has the batch size {size!r}"):
        batches(HOSTS, [1, size])


def test_a_lease_outlasts_the_soak_and_the_longest_drain_of_a_batch() -> None:
    assert lease_seconds(soak=10, drains=[30, 5]) == 70
    assert lease_seconds(soak=0, drains=[]) == 30


STAGED = {"release": "new", "current": "old", "serves": False}
REACHED = {"changed": True}


@pytest.mark.parametrize(
    ("steps", "before", "after", "result"),
    [
        ({"staged": {**STAGED, "serves": True, "current": "new"}}, "new", "new", "as it was"),
        ({"staged": STAGED, "activated": REACHED}, "old", "new", "deployed"),
        ({"staged": {**STAGED, "current": None}, "activated": REACHED}, "", "new", "deployed"),
        ({"staged": STAGED, "activated": REACHED, "returned": {"skipped": True}}, "old", "new", "deployed"),
        ({"staged": STAGED, "activated": REACHED, "verified": {"changed": False}}, "old", "new", "deployed"),
        ({"staged": STAGED, "activated": REACHED, "verified": {"failed": True}}, "old", "new", "not as declared"),
        ({"staged": STAGED, "activated": REACHED, "verified": {"unreachable": True}}, "old", "new", "not as declared"),
        ({"staged": STAGED}, "old", "old", "not reached"),
        ({"staged": STAGED, "activated": {"skipped": True}}, "old", "old", "not reached"),
        ({"staged": STAGED, "activated": {"failed": True}}, "old", "old", "failed"),
        ({"staged": STAGED, "activated": {"failed": True, "serves": None}}, "old", "old", "failed"),
        ({"staged": STAGED, "activated": {"failed": True, "serves": "old"}}, "old", "old", "failed"),
        ({"staged": STAGED, "activated": {"failed": True, "serves": ""}}, "old", "", "failed"),
        ({"staged": STAGED, "activated": {"unreachable": True}}, "old", "?", "lost"),
        ({"staged": STAGED, "activated": REACHED, "returned": {"changed": True}}, "old", "old", "returned"),
        ({"staged": STAGED, "activated": REACHED, "returned": {"failed": True}}, "old", "new", "not returned"),
        ({"staged": STAGED, "activated": REACHED, "returned": {"unreachable": True}}, "old", "new", "not returned"),
        (
            {"staged": {**STAGED, "current": None}, "activated": REACHED, "returned": {"changed": False}},
            "",
            "new",
            "kept",
        ),
    ],
)
def test_how_it_ended_on_a_host(steps: dict[str, Any], before: str, after: str, result: Result) -> None:
    given = dict.fromkeys(("staged", "activated", "returned", "verified")) | steps
    found = outcome("app1", name="shop", **given)
    assert (found.before, found.after, found.result) == (before, after, result)


def test_a_host_that_was_lost_says_what_to_do_when_it_is_back() -> None:
    found = outcome("app2", staged=STAGED, activated={"unreachable": True}, returned=None, verified=None, name="shop")
    assert found.do_next == "When app2 is back, run the play again: it finishes or undoes what it finds there."


def test_a_host_on_which_nothing_serves_any_more_says_where_to_look() -> None:
    down = {"failed": True, "serves": ""}
    found = outcome("app2", staged=STAGED, activated=down, returned=None, verified=None, name="shop")
    assert found.do_next == (
        "On app2: slipway status --name shop tells how it stands. Mend that, and run the play again."
    )
    assert summary("shop", [found]).startswith("shop is not deployed: it failed on app2, and none serves there now.")


NEW = ("deployed", "kept", "not returned", "not as declared")


def ended(**results: Result) -> list[Outcome]:
    after = {
        host: "1" * 16 if result in NEW else "?" if result == "lost" else "0" * 16 for host, result in results.items()
    }
    return [Outcome(host=host, before="0" * 16, after=after[host], result=result) for host, result in results.items()]


@pytest.mark.parametrize(
    ("outcomes", "headline"),
    [
        (ended(a1="deployed", a2="deployed", a3="as it was"), "shop is deployed on 3 hosts."),
        (
            ended(a1="returned", a2="failed", a3="not reached"),
            "shop is not deployed: it failed on a2. Every host serves what it served before.",
        ),
        (
            ended(a1="returned", a2="lost", a3="failed"),
            "shop is not deployed: it failed on a2, a3, and the hosts are not all on one release.",
        ),
        (
            ended(a1="kept", a2="failed"),
            "shop is not deployed: it failed on a2, and the hosts are not all on one release.",
        ),
        (
            [Outcome(host="a1", before="1" * 16, after="1" * 16, result="as it was"), *ended(a2="failed")],
            "shop is not deployed: it failed on a2, and the hosts are not all on one release.",
        ),
        (
            ended(a1="deployed", a2="not as declared"),
            "shop is deployed on 2 hosts, and not as declared on a2.",
        ),
    ],
)
def test_the_headline_says_whether_the_fleet_is_whole(outcomes: list[Outcome], headline: str) -> None:
    assert summary("shop", outcomes).splitlines()[0] == headline


def test_the_summary_has_a_row_per_host_and_what_is_left_to_do_once() -> None:
    lost = Outcome(host="app2", before="old", after="?", result="lost", do_next="When app2 is back, run it again.")
    good = Outcome(host="app10", before="", after="new", result="kept")
    assert summary("shop", [good, lost]).splitlines()[1:] == [
        "HOST   BEFORE  AFTER  RESULT",
        "app10  -       new    kept",
        "app2   old     ?      lost",
        "When app2 is back, run it again.",
    ]
