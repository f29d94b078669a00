"""The network of a release on this host: a subnet of its own, and a fixed address for every container in it.

The edge dials these addresses. They hold across restarts of containers, daemon and host, and need no name
resolution, which lives in the Docker daemon and goes away with it. Which subnet a release has is a matter of the
host, so it stands beside the immutable files, in `.env`, which Compose reads by itself.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from slipway.daemon import Daemon
from slipway.errors import PreflightError
from slipway.release import NETWORK_VARIABLE, Manifest, instances
from slipway.store import HOST_ENV_FILE

POOL = "10.207.0.0/16"
PREFIX = 24
ROUTES = Path("/proc/net/route")


def addresses(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Name of each container in Compose -> its address. Empty where the release has no subnet on this host yet."""
    subnet = subnet_of(folder)
    if subnet is None:
        return {}
    return {one.name: str(subnet[one.number]) for one in instances(manifest.services)}


def subnet_of(folder: Path) -> IPv4Network | None:
    """The subnet that a release folder notes, or None."""
    try:
        text = (folder / HOST_ENV_FILE).read_text()
    except FileNotFoundError:
        return None
    return ipaddress.IPv4Network(f"{text.strip().partition('=')[2]}.0/{PREFIX}")


def settle(root: Path, folder: Path, project: str, daemon: Daemon, pool: str = POOL) -> None:
    """Give the release in `folder` a subnet that nothing else on this host uses; one that it has is kept if it can be.

    `root` is the folder of all environments, `project` the release's Compose project. Raises
    :class:`PreflightError` when the pool is used up.
    """
    networks = daemon.networks()
    own = subnet_of(folder)
    if own and f"{project}_default" in networks:
        return
    with _alone(root):
        taken = [*(subnet for subnets in networks.values() for subnet in subnets), *_routed()]
        if own and _is_free(own, taken):
            return
        noted = (subnet_of(path.parent) for path in root.glob(f"*/releases/*/{HOST_ENV_FILE}") if path.parent != folder)
        subnet = _first_free(pool, [*taken, *(one for one in noted if one)])
        _note(folder, subnet)


def _first_free(pool: str, taken: list[IPv4Network]) -> IPv4Network:
    try:
        candidates = ipaddress.IPv4Network(pool).subnets(new_prefix=PREFIX)
        free = next((subnet for subnet in candidates if _is_free(subnet, taken)), None)
    except ValueError as error:
        raise PreflightError(
            f"{pool} is no range that releases can have their subnets from: {error}.",
            f"Give release_address_pool one such as {POOL}.",
        ) from error
    if free:
        return free
    raise PreflightError(
        f"No subnet of {pool} is free on this host.",
        "Give release_address_pool another range, one that the host's own networks do not use.",
    )


def _is_free(subnet: IPv4Network, taken: Iterable[IPv4Network]) -> bool:
    return not any(subnet.overlaps(other) for other in taken)


def _routed(table: Path = ROUTES) -> Iterator[IPv4Network]:
    """Networks that this host has a route to, the default route excepted."""
    # Source: proc(5): Iface, Destination, …, the eighth field is the mask; both are little-endian hexadecimal.
    for row in table.read_text().splitlines()[1:]:
        fields = row.split()
        destination, mask = (IPv4Address(bytes.fromhex(fields[at])[::-1]) for at in (1, 7))
        if int(mask):
            yield ipaddress.IPv4Network(f"{destination}/{mask}")


def _note(folder: Path, subnet: IPv4Network) -> None:
    beside = folder / f"{HOST_ENV_FILE}.new"
    beside.write_text(f"{NETWORK_VARIABLE}={str(subnet.network_address).rpartition('.')[0]}\n")
    beside.chmod(0o400)
    beside.replace(folder / HOST_ENV_FILE)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Two environments of one host must not choose the same subnet."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def established(targets: Iterable[tuple[str, int]], table: Path = Path("/proc/net/tcp")) -> int:
    """How many connections this host has open to any of the `targets` (address, port)."""
    # Source: proc_net_tcp(5): sl, local_address, rem_address, st; the address is little-endian, 01 is ESTABLISHED.
    wanted = {f"{IPv4Address(address).packed[::-1].hex().upper()}:{port:04X}" for address, port in targets}
    rows = (row.split() for row in table.read_text().splitlines()[1:])
    return sum(row[3] == "01" and row[2] in wanted for row in rows)
