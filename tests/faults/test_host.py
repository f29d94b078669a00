"""What happens to the host itself while an environment on it serves, or is being deployed to."""

from __future__ import annotations

import contextlib
import time

import pytest

from tests.faults.environment import FOLDER, NAME, Environment
from tests.faults.lab import wait_for
from tests.faults.seen import Seen

pytestmark = pytest.mark.faults


def test_the_host_restarts_while_a_release_starts_on_it(shop: Environment) -> None:
    with shop.load() as load:
        running = shop.start_deploy("1.1", env={"BEHAVIOUR": "slow"})
        wait_for(lambda: shop.machine.engine("activate"), "the activation")
        time.sleep(1)
        shop.machine.lose_power()
        shop.machine.power_on()
        wait_for(lambda: answers(shop), "an answer after the restart")
        running.wait().failed()
        assert shop.version() == "1.0", "it was not switched to"
        shop.goes_on()
    seen = load.seen.disturbed(for_ms=20_000)
    assert seen.versions == ["1.0", "1.1"]
    assert any("cut off" in run["reason"] for run in shop.history())


def test_the_host_restarts_once_traffic_has_moved(shop: Environment) -> None:
    before = shop.current()
    with shop.load() as load:
        running = shop.start_deploy("1.1", variables={"release_soak_seconds": 5})
        wait_for(lambda: shop.has_moved_from(before), "the switch", every=0.005)
        shop.machine.lose_power()
        shop.machine.power_on()
        wait_for(lambda: answers(shop), "an answer after the restart")
        running.wait().failed()
        shop.goes_on()
    load.seen.disturbed(for_ms=20_000)


def test_the_docker_daemon_restarts_in_the_middle_of_a_deploy(shop: Environment) -> None:
    with shop.load() as load:
        running = shop.start_deploy("1.1", env={"BEHAVIOUR": "slow"})
        wait_for(lambda: shop.machine.engine("activate"), "the activation")
        time.sleep(1)
        shop.machine.restart_docker()
        running.wait()
        shop.goes_on()
    load.seen.undisturbed()


def test_the_docker_daemon_restarts_and_the_edge_goes_on(shop: Environment) -> None:
    with shop.load() as load:
        shop.machine.restart_docker()
    assert load.seen.undisturbed().gap_ms < 1000, load.seen
    shop.serves("1.0")


def test_the_disk_is_full_while_a_release_is_staged(shop: Environment) -> None:
    with shop.machine.small(FOLDER, megabytes=4) as folder:
        with shop.load() as load:
            filler = folder / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as out:
                while True:
                    out.write(bytes(4096))
            shop.deploy("1.1").failed("The disk is full")
            shop.deploy("1.1").failed("The disk is full")
            assert shop.version() == "1.0"
            filler.unlink()
            shop.goes_on()
        load.seen.undisturbed()


@pytest.mark.core
def test_the_entry_of_the_edge_is_killed_in_the_middle_of_a_deploy(shop: Environment) -> None:
    # Docker starts it again. Until then nobody listens.
    in_the_middle(shop, "slipway-edge-entry-1").disturbed(for_ms=3000)


def test_the_switch_of_the_edge_is_killed_in_the_middle_of_a_deploy(shop: Environment) -> None:
    # Requests wait for it at the entry. What was under way in it can only be lost.
    seen = in_the_middle(shop, "slipway-edge-switch-1")
    assert seen.without_service_ms < 500, seen
    assert seen.gap_ms < 3000, seen


def in_the_middle(shop: Environment, container: str) -> Seen:
    """Kill a container while a release starts; what users saw until the next deploy was through."""
    with shop.load() as load:
        running = shop.start_deploy("1.1", env={"BEHAVIOUR": "slow"})
        wait_for(lambda: shop.machine.engine("activate"), "the activation")
        shop.machine.kill_container(container)
        running.wait()
        shop.goes_on()
    return load.seen


def test_the_database_is_gone_for_a_while_and_comes_back(shop: Environment) -> None:
    data = shop.machine.path(f"/var/lib/docker/volumes/{NAME}-data/_data")
    with shop.load() as load:
        (data / "gone").touch()
        time.sleep(1)
        # A new release cannot be judged meanwhile, so there is none.
        shop.deploy("1.1", health={"path": "/", "json": {"status": "ready"}, "start_period": 2}).failed()
        (data / "gone").unlink()
        time.sleep(1)
        assert shop.version() == "1.0", "it serves again, and nobody did anything"
        shop.goes_on()
    seen = load.seen.disturbed(for_ms=30_000)
    assert {request.error for request in seen.failed} == {"answered 503"}


def answers(shop: Environment) -> bool:
    """Whether the application answers."""
    try:
        shop.version()
    except (AssertionError, OSError):
        return False
    return True
