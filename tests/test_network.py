"""Each release has a subnet of its own on its host, and each container a fixed address in it."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from slipway import network
from slipway.contract import Service
from slipway.daemon import Daemon
from slipway.errors import PreflightError
from slipway.network import addresses, settle, subnet_of
from slipway.release import Manifest

POOL = "10.207.0.0/22"
"""Room for four releases."""


class Networks(Daemon):
    """The networks of a daemon, without the daemon."""

    def __init__(self, **subnets: str) -> None:
        super().__init__()
        self._found = {name.replace("_", "-", 1): [IPv4Network(subnet)] for name, subnet in subnets.items()}

    def networks(self) -> dict[str, list[IPv4Network]]:
        return self._found


@pytest.fixture(autouse=True)
def no_routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "route"
    table.write_text("Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n")
    monkeypatch.setattr(network._routed, "__defaults__", (table,))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "srv"
    folder.mkdir()
    return folder


def release(root: Path, name: str) -> Path:
    folder = root / "shop" / "releases" / name
    folder.mkdir(parents=True)
    return folder


def settled(root: Path, folder: Path, daemon: Daemon | None = None) -> str:
    settle(root, folder, f"shop-{folder.name}", daemon or Networks(), POOL)
    return str(subnet_of(folder))


def test_each_release_has_a_subnet_of_its_own_and_keeps_it(root: Path) -> None:
    first, second = release(root, "a"), release(root, "b")
    assert settled(root, first) == "10.207.0.0/24"
    assert settled(root, second) == "10.207.1.0/24"
    assert settled(root, first) == "10.207.0.0/24"
    assert (first / ".env").stat().st_mode & 0o777 == 0o400


def test_what_another_network_or_a_route_of_the_host_uses_is_left_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "route"
    # 10.207.1.0/24, as the kernel writes it on a little-endian machine.
    with table.open("a") as out:
        out.write(
            "eth0 0001CF0A 00000000 0001 0 0 0 00FFFFFF 0 0 0\neth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0\n"
        )
    assert settled(root, release(root, "a"), Networks(other="10.207.0.128/25")) == "10.207.2.0/24"


def test_a_subnet_that_something_took_while_the_release_had_no_network_is_given_up(root: Path) -> None:
    folder = release(root, "a")
    assert settled(root, folder) == "10.207.0.0/24"
    assert settled(root, folder, Networks(thief="10.207.0.0/24")) == "10.207.1.0/24"


def test_the_releases_own_network_is_no_thief(root: Path) -> None:
    folder = release(root, "a")
    settled(root, folder)
    daemon = Networks()
    daemon.networks()["shop-a_default"] = [IPv4Network("10.207.0.0/24")]
    assert settled(root, folder, daemon) == "10.207.0.0/24"


def test_a_pool_that_is_used_up_is_said(root: Path) -> None:
    with pytest.raises(PreflightError) as error:
        settled(root, release(root, "a"), Networks(all="10.207.0.0/16"))
    assert error.value.what == "No subnet of 10.207.0.0/22 is free on this host."
    assert "release_address_pool" in error.value.do_next


def test_every_container_has_an_address_by_its_place_in_the_contract(root: Path) -> None:
    folder = release(root, "a")
    services = {"web": Service(image="r/web", user="1:1"), "api": Service(image="r/api", user="1:1", replicas=2)}
    manifest = Manifest(
        name="shop", environment="test", id="a" * 16, kit="0", images={}, tags={}, fingerprints={}, services=services
    )
    assert addresses(folder, manifest) == {}
    settled(root, folder)
    assert addresses(folder, manifest) == {"api": "10.207.0.11", "api-2": "10.207.0.12", "web": "10.207.0.13"}
