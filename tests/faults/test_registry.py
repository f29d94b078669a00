"""Images that do not come: whatever is wrong with them or their registry, the release that serves is not touched."""

from __future__ import annotations

import pytest

from tests.faults.environment import Environment
from tests.faults.registry import Registry

pytestmark = pytest.mark.faults


@pytest.fixture
def new(shop: Environment) -> str:
    """The digest of 1.1, which the machine does not have yet."""
    return shop.forget("1.1")


def test_an_image_that_nobody_pushed(shop: Environment) -> None:
    before = shop.history()
    with shop.load() as load:
        shop.deploy("9.9").failed("does not exist in its registry", "Push that tag")
    assert load.seen.undisturbed().versions == ["1.0"]
    assert shop.history() == before, "it ended before anything was done"
    shop.serves("1.0")
    shop.goes_on()


def test_a_digest_that_the_registry_does_not_have(shop: Environment) -> None:
    before = shop.history()
    with shop.load() as load:
        shop.deploy("1.1", digest=f"sha256:{'0' * 64}").failed("does not exist in its registry")
    assert load.seen.undisturbed().versions == ["1.0"]
    assert shop.history() == before
    shop.serves("1.0")
    shop.goes_on()


def test_an_image_that_is_not_what_its_digest_says(shop: Environment, registry: Registry, new: str) -> None:
    registry.mode = "lies"
    with shop.load() as load:
        shop.deploy("1.1", digest=new).failed("could not be pulled", "digest")
    assert load.seen.undisturbed().versions == ["1.0"]
    assert shop.last()["result"] == "failed"
    assert "could not be pulled" in shop.last()["reason"]
    shop.serves("1.0")
    registry.mode = "serves"
    shop.goes_on("1.1", digest=new)


def test_a_registry_that_is_away(shop: Environment, registry: Registry, new: str) -> None:
    before = shop.history()
    registry.mode = "away"
    with shop.load() as load:
        shop.deploy("1.1").failed("registry")
    assert load.seen.undisturbed().versions == ["1.0"]
    assert shop.history() == before
    shop.serves("1.0")
    registry.mode = "serves"
    shop.goes_on()


def test_a_registry_that_goes_away_during_the_pull(shop: Environment, registry: Registry, new: str) -> None:
    registry.mode = "breaks off"
    with shop.load() as load:
        shop.deploy("1.1", digest=new).failed("could not be pulled", "Check that its registry answers")
    assert registry.is_away, "the pull had begun"
    assert load.seen.undisturbed().versions == ["1.0"]
    assert (shop.last()["result"], list(shop.last()["phases"])) == ("failed", ["stage"])
    shop.serves("1.0")
    registry.mode = "serves"
    shop.goes_on()


def test_without_a_registry_what_is_on_the_machine_can_be_deployed_and_taken_back(
    shop: Environment, registry: Registry
) -> None:
    digest = shop.digest("1.1")
    shop.deploy("1.1", digest=digest).ok()
    registry.mode = "away"
    with shop.load() as load:
        shop.rollback().ok()
        shop.deploy("1.1", digest=digest).ok()
    assert load.seen.undisturbed().versions == ["1.1", "1.0"]
    shop.serves("1.1")
