"""A release that is as it should be: nobody notices that it comes."""

from __future__ import annotations

import pytest

from tests.faults.environment import Environment

pytestmark = pytest.mark.faults


@pytest.mark.core
def test_a_good_deploy_fails_no_request_ends_no_work_and_loses_no_data(shop: Environment) -> None:
    with shop.load() as load:
        shop.deploy("1.1").ok()
    seen = load.seen.undisturbed()
    assert seen.versions == ["1.0", "1.1"]
    assert seen.gap_ms < 500, seen
    ended = [stream.ending for stream in seen.streams if stream.version == "1.0"]
    assert ended == ["ended"], "a stream that never ends by itself is ended when its release has drained"
    shop.serves("1.1")
    told = shop.last()
    assert (told["verb"], told["result"], told["unavailable_ms"]) == ("deploy", "good", 0)
    assert list(told["parts"]) == ["start", "switch", "soak", "drain", "stop"]
    assert told["parts"]["drain"] + told["parts"]["soak"] < 7, "drain_seconds are 6"


def test_deploying_the_same_again_changes_nothing_and_nobody_notices(shop: Environment) -> None:
    before = shop.machine.docker("ps", "--no-trunc", "--format", "{{.ID}} {{.CreatedAt}}")
    with shop.load() as load:
        again = shop.deploy("1.0").ok()
    assert again.changed == 0
    assert load.seen.undisturbed().versions == ["1.0"]
    assert shop.machine.docker("ps", "--no-trunc", "--format", "{{.ID}} {{.CreatedAt}}") == before


def test_a_plan_changes_nothing(shop: Environment) -> None:
    before = shop.history()
    with shop.load() as load:
        planned = shop.start_deploy("2.0", check=True).wait().ok()
    assert load.seen.undisturbed().versions == ["1.0"]
    assert planned.changed == 1
    assert shop.history() == before
    shop.serves("1.0")


def test_replicas_are_replaced_without_a_lost_request(shop: Environment) -> None:
    shop.deploy("1.0", replicas=2).ok()
    with shop.load() as load:
        shop.deploy("1.1", replicas=2).ok()
    assert load.seen.undisturbed().versions == ["1.0", "1.1"]
    shop.serves("1.1")
