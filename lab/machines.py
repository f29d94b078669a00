"""The machines that a lab can have (lab/compose.yml describes them), and what is written down about those it has."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.ssh import USER, Host, options
from slipway.errors import SlipwayError

REGISTRY = "registry"
"""The service of the lab's registry; it is none of the machines."""
REGISTRY_USER = "lab"
REGISTRY_OCTET, REGISTRY_PORT = 5, 5000

LABS = ipaddress.ip_network("10.213.64.0/19")
"""Where the networks of labs lie that name none."""


@dataclass(frozen=True)
class Machine:
    """One service of lab/compose.yml: its last octet, what it runs, and the group of an inventory that it is for."""

    name: str
    octet: int
    system: str = "debian13"
    group: str = ""

    def host(self, network: str) -> Host:
        """Where it can be reached; `network` is the first three octets."""
        return Host(self.name, f"{network}.{self.octet}")


MACHINES = {
    machine.name: machine
    for machine in (
        Machine("app1", 11, group="app"),
        Machine("app2", 12, group="app"),
        Machine("app3", 13, system="debian12", group="app"),
        Machine("edge1", 14, group="edge"),
        Machine("database1", 15, group="database"),
        Machine("backup1", 16, group="backup"),
        Machine("debian12-noinit", 21, system="debian12-noinit"),
    )
}
"""By name, in the order in which a lab grows."""
COUNTED = [name for name, machine in MACHINES.items() if machine.group]

SUITES = {"debian13": "trixie", "debian12": "bookworm", "debian12-noinit": "bookworm"}
"""System -> the Debian that it is made from."""


def choose(words: Sequence[str]) -> tuple[list[Machine], bool]:
    """What an operator asks for: machines, and whether there is to be a registry.

    A number asks for the first so many, with a registry, and no word at all for one. Whoever names machines gets
    those, and names the registry to have it too.
    """
    named = list(words) or ["1"]
    if len(named) == 1 and named[0].isdecimal():
        count = int(named[0])
        if not 1 <= count <= len(COUNTED):
            raise SlipwayError(
                f"A lab has between 1 and {len(COUNTED)} hosts, and {count} were asked for.",
                f"Ask for fewer, or name them: {', '.join(COUNTED)}.",
            )
        named = [*COUNTED[:count], REGISTRY]
    for name in named:
        if name not in MACHINES and name != REGISTRY:
            raise SlipwayError(f"The lab knows no host {name}.", f"Name some of these: {', '.join(MACHINES)}.")
    return [machine for name, machine in MACHINES.items() if name in named], REGISTRY in named


def free_network(taken: Iterable[str]) -> str:
    """The first three octets of a network for a lab that overlaps none of these subnets."""
    used = [ipaddress.ip_network(subnet) for subnet in taken]
    for network in LABS.subnets(new_prefix=24):
        if not any(network.overlaps(other) for other in used if other.version == network.version):
            return str(network.network_address).rpartition(".")[0]
    raise SlipwayError(
        f"Every network of {LABS} is in use.", "Remove a lab that nobody needs: make lab-down name=NAME."
    )


def registry_host(network: str) -> str:
    """What images of the lab's registry are called by: its address and port."""
    return f"{network}.{REGISTRY_OCTET}:{REGISTRY_PORT}"


def inventory(
    hosts: Sequence[Host], groups: Mapping[str, Sequence[str]], folder: Path, registry: str
) -> dict[str, Any]:
    """What Ansible has to know: hosts in groups, and how to log in to them and to a registry, where there is one.

    The password is looked up when it is used, so that whoever prints the inventory prints no secret.
    """
    variables: dict[str, Any] = {
        "ansible_user": USER,
        "ansible_ssh_private_key_file": str(folder / "key"),
        # What an operator has in ~/.ssh plays no part.
        "ansible_ssh_common_args": shlex.join(options(folder)),
        # A connection that is kept open is the lab's own, and ends with it.
        "ansible_control_path_dir": str(folder / "ssh"),
    }
    if registry:
        login = {
            "host": registry,
            "username": REGISTRY_USER,
            "password": _content(folder / "registry-password"),
            "ca": _content(folder / "registry-ca.crt"),
        }
        variables |= {"docker_registries": [login]}
    named = {one.name: {"ansible_host": one.address, "ansible_port": one.port} for one in hosts}
    children: dict[str, Any] = {group: {"hosts": {name: {} for name in members}} for group, members in groups.items()}
    return {"all": {"children": {"lab": {"hosts": named, "vars": variables}, **children}}}


def groups(machines: Sequence[Machine]) -> dict[str, list[str]]:
    """Group of an inventory -> the machines that are for it."""
    found: dict[str, list[str]] = {}
    for machine in machines:
        if machine.group:
            found.setdefault(machine.group, []).append(machine.name)
    return found


def newest(lock: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Of each repository in a lock (repository, tag, digest) the image that it got last, under all of its tags."""
    return {
        repository: {tag: digest for tag, digest in tags.items() if digest == list(tags.values())[-1]}
        for repository, tags in lock.items()
        if tags
    }


def elsewhere(repository: str, registry: str) -> str:
    """What a repository of one registry is called in another."""
    return f"{registry}/{repository.partition('/')[2]}"


def _content(file: Path) -> str:
    return f"{{{{ lookup('ansible.builtin.file', {str(file)!r}, rstrip=false) }}}}"
