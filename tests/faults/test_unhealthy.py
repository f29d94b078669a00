"""Releases that are bad: before traffic moved nobody meets them, and after it traffic moves back by itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.environment import SECRET, Environment, Play

pytestmark = pytest.mark.faults

SHORT = {"path": "/", "json": {"status": "ready"}, "version": "version", "start_interval": 0.1, "start_period": 3}


def returned(shop: Environment, play: Play) -> dict[str, Any]:
    """Check what is so after every release that was taken back; the run, as the ledger tells it."""
    assert SECRET not in play.output, "the application printed it"
    shop.serves("1.0")
    told = shop.last()
    assert told["result"] == "returned"
    return told


@pytest.mark.core
def test_a_release_that_is_never_ready_sees_no_request(shop: Environment) -> None:
    with shop.load() as load:
        play = shop.deploy("1.1", env={"BEHAVIOUR": "never ready"}, health=SHORT)
    play.failed("did not become healthy in 3 seconds", "answered 503 instead of 200", "starting with")
    assert load.seen.undisturbed().versions == ["1.0"]
    told = returned(shop, play)
    assert "did not become healthy" in told["reason"]
    assert told["unavailable_ms"] == 0
    shop.goes_on()


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [("crashes", "dies again and again"), ("wrong version", "says version is '0.0' instead of '1.1'")],
)
def test_a_release_sees_no_request_that(behaviour: str, sentence: str, shop: Environment) -> None:
    with shop.load() as load:
        play = shop.deploy("1.1", env={"BEHAVIOUR": behaviour}, health=SHORT).failed(sentence)
    assert load.seen.undisturbed().versions == ["1.0"]
    returned(shop, play)
    shop.goes_on()


def test_a_release_that_crashes_once_traffic_has_moved_is_taken_back(shop: Environment) -> None:
    with shop.load() as load:
        play = shop.deploy(
            "1.1", env={"BEHAVIOUR": "crashes later", "AFTER": "2"}, variables={"release_soak_seconds": 8}
        )
    play.failed("died", "the shop went away", "serves again")
    seen = load.seen
    assert seen.versions == ["1.0", "1.1"], "both answered"
    # What was sent to it after it died, and before that was seen.
    assert {request.error for request in seen.failed} <= {"answered 502"}
    assert seen.without_service_ms < 1500, seen
    assert "died" in returned(shop, play)["reason"]
    shop.goes_on()


def test_a_release_that_answers_500_once_traffic_has_moved_is_taken_back(shop: Environment) -> None:
    with shop.load() as load:
        # Its health goes on saying that all is well.
        play = shop.deploy(
            "1.1",
            env={"BEHAVIOUR": "fails later", "AFTER": "3"},
            health={**SHORT, "path": "/health"},
            variables={"release_soak_seconds": 8},
        )
    play.failed("were server errors", "serves again")
    seen = load.seen.disturbed(for_ms=1500)
    assert {request.error for request in seen.failed} == {"answered 500"}
    assert "were server errors" in returned(shop, play)["reason"]
    shop.goes_on()
