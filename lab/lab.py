"""A lab from :meth:`Lab.up` to :meth:`Lab.down`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from lab import images
from lab.commands import KIT, alone, at_once, out, play, say
from lab.machines import (
    MACHINES,
    REGISTRY,
    SUITES,
    Machine,
    elsewhere,
    free_network,
    groups,
    inventory,
    newest,
    registry_host,
)
from lab.registry import fill, lab_registry, make_credentials
from lab.ssh import REGISTRY_PORT, USER, Host, Ssh, write_private
from slipway.errors import SlipwayError

LABS = KIT / ".lab"
"""Where a lab keeps its files that names no other place."""
MARK = ".slipway-lab"
"""The file that tells a lab's folder from one that somebody else made."""
AUTHORIZED = f"/etc/ssh/authorized_keys/{USER}"
MAKERS = {"debian13": ("app1", "10.213.62"), "debian12": ("app3", "10.213.63")}
"""System -> the machine, and its network, on which Docker is installed for an image of it."""


class Lab:
    """Machines of one Compose project on a network of its own; `folder` is for what the controller keeps of them.

    `network` is the first three octets; without one, a lab keeps that which it has or gets one that is free. Two labs
    at a time need two projects and two networks. `registry_port` is the loopback port here of what machines shall see
    as the registry on their own loopback.
    """

    def __init__(self, project: str, folder: Path, *, network: str = "", registry_port: int = REGISTRY_PORT) -> None:
        self.project = project
        self.folder = folder.absolute()
        self._network = network
        self._ssh = Ssh(self.folder, registry_port=registry_port)
        self._environment: dict[str, str] = {}

    # --- its life --------------------------------------------------------------------------------------------------

    def up(self, machines: Sequence[Machine], *, engine: bool = True, registry: bool = True) -> None:
        """Boot machines, and make them known. Those that are up stay as they are, so a lab can grow.

        With `engine` they have a Docker engine from the kit's own role; with `registry` there is one to log in to.
        """
        images.prepare()
        self._make_folder()
        systems = dict.fromkeys(machine.system for machine in machines)
        with alone("images"):
            built = images.built() if registry else {}
            # One after the other: where there is none, a playbook of the kit makes it, on this machine.
            for suite in dict.fromkeys(SUITES[system] for system in systems):
                images.base(suite)
        self._environment = {
            "LAB_FOLDER": str(self.folder),
            "LAB_INIT": images.init(),
            "LAB_UNITS": "ssh docker" if engine else "ssh",
            **dict(at_once(lambda system: _image(system, engine=engine), systems)),
        }
        services = [*(machine.name for machine in machines), *([REGISTRY] if registry else [])]
        # What is free is anybody's until the network is there.
        with alone("network"):
            if registry:
                make_credentials(self.folder, registry_host(self.network).partition(":")[0])
                self._environment["LAB_REGISTRY"] = images.registry()
            self.compose("create", "--no-build", "--no-recreate", *services)
        self.compose("up", "--detach", "--no-build", "--no-recreate", "--wait", "--wait-timeout", "90", *services)
        self._make_known(built)

    def down(self) -> None:
        """Remove it with all it holds: machines, networks, volumes, connections, files. Nothing to remove is fine."""
        self._ssh.end()
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "0")
        if (self.folder / MARK).exists():
            shutil.rmtree(self.folder)
        with contextlib.suppress(OSError):  # there are those of another lab in it, or none ever were
            LABS.rmdir()

    @property
    def network(self) -> str:
        """The first three octets of its network."""
        if not self._network:
            subnets = _subnets()
            own = subnets.get(f"{self.project}_lab", [])
            others = [subnet for name, found in subnets.items() for subnet in found if name != f"{self.project}_lab"]
            self._network = own[0].rpartition(".")[0] if own else free_network(others)
        return self._network

    def machines(self) -> list[Machine]:
        """Those that are up."""
        services = self._services()
        return [machine for name, machine in MACHINES.items() if name in services]

    def container(self, machine: str) -> str:
        """The name of the container that a machine is."""
        return f"{self.project}-{machine}-1"

    def compose(self, *arguments: str) -> str:
        """Run docker compose on the lab."""
        command = ["docker", "compose", "--project-name", self.project, "--file", str(KIT / "lab/compose.yml")]
        # To take it down, any network will do.
        environment = {"LAB_NETWORK": self.network if self._environment else "0.0.0", **self._environment}
        return out(*command, *arguments, env=environment)

    def left(self) -> list[str]:
        """What there is of it on this machine: containers, networks, volumes, connections, files."""
        label = f"label=com.docker.compose.project={self.project}"
        found = [
            f"{what} {name}"
            for what, form in (("container", "{{.Names}}"), ("network", "{{.Name}}"), ("volume", "{{.Name}}"))
            for name in out(
                "docker", what, "ls", *(["--all"] if what == "container" else []), "--filter", label, "--format", form
            ).split()
        ]
        found += [f"process {process}" for process in self._ssh.processes()]
        return [*found, *([f"folder {self.folder}"] if self.folder.exists() else [])]

    # --- connections -----------------------------------------------------------------------------------------------

    @property
    def ssh_options(self) -> list[str]:
        """How to log in to its machines by name or address."""
        return self._ssh.options

    @property
    def inventory(self) -> Path:
        """The inventory that is written of it."""
        return self.folder / "inventory.yml"

    # --- making it known -------------------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        if self.folder.exists() and not (self.folder / MARK).exists() and any(self.folder.iterdir()):
            raise SlipwayError(f"{self.folder} holds files that are not a lab's.", "Name another folder for the lab.")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / MARK).touch()
        (self.folder / "ssh").mkdir(mode=0o700, exist_ok=True)
        self._ssh.make_key(self.project)

    def _make_known(self, built: dict[str, dict[str, str]]) -> None:
        machines = self.machines()
        hosts = [machine.host(self.network) for machine in machines]
        self._ssh.know(dict(zip(hosts, at_once(self._exchange_keys, hosts), strict=True)))
        registry = registry_host(self.network) if REGISTRY in self._services() else ""
        told = inventory(hosts, groups(machines), self.folder, registry)
        write_private(self.inventory, yaml.safe_dump(told, sort_keys=False, width=160))
        at_once(self._ssh.open_tunnel, [host.name for host in hosts])
        if built:
            here = newest(built)
            fill(lab_registry(self.folder, registry), here)
            lock = {"images": {**here, **{elsewhere(name, registry): tags for name, tags in here.items()}}}
            write_private(self.folder / "images.lock.yml", yaml.safe_dump(lock, sort_keys=False, width=160))
        # What root made here belongs to whom the checkout belongs.
        owner = KIT.stat()
        for path in [self.folder, *self.folder.iterdir()]:
            if path.name != "registry":
                os.chown(path, owner.st_uid, owner.st_gid)

    def _exchange_keys(self, machine: Host) -> str:
        """Let the lab's key log in to a machine; gives the key that the machine is known by."""
        script = f"cat > {AUTHORIZED} && cat /etc/ssh/ssh_host_ed25519_key.pub"
        shell = ["docker", "exec", "--interactive", self.container(machine.name), "sh", "-c", script]
        return out(*shell, stdin=self._ssh.public_key)

    def _services(self) -> list[str]:
        label = f"label=com.docker.compose.project={self.project}"
        form = '{{.Label "com.docker.compose.service"}}'
        return out("docker", "ps", "--filter", label, "--format", form).split()


def _image(system: str, *, engine: bool) -> tuple[str, str]:
    """The variable of lab/compose.yml that names the image of a system, and the image."""
    variable = f"LAB_{system.upper().replace('-', '_')}"
    bare = images.bare(system)
    if not engine or system not in MAKERS:
        return variable, bare
    with alone(system):
        return variable, images.with_engine(bare) or _install_engine(system, bare)


def _install_engine(system: str, bare: str) -> str:
    """Have the kit install Docker on a machine, and keep it as an image."""
    say(f"installing Docker on a {system}, once")
    name, network = MAKERS[system]
    lab = Lab(f"slipway-lab-make-{system}", LABS / f"make-{system}", network=network)
    lab.down()
    try:
        lab.up([MACHINES[name]], engine=False, registry=False)
        certificates = images.CERTIFICATES if images.CERTIFICATES.exists() else ""
        play("-i", str(lab.inventory), "-e", json.dumps({"docker_ca_bundle": str(certificates)}), "lab/engine.yml")
        out("docker", "stop", lab.container(name))
        return images.keep(lab.container(name), f"{images.REPOSITORY}:{system}-engine", bare)
    finally:
        lab.down()


def _subnets() -> dict[str, list[str]]:
    """Name of each Docker network on this machine -> its subnets."""
    found: dict[str, list[str]] = {}
    for number in out("docker", "network", "ls", "--quiet").split():
        with contextlib.suppress(SlipwayError):  # somebody else has just removed it
            [network] = json.loads(out("docker", "network", "inspect", number))
            found[network["Name"]] = [part["Subnet"] for part in network["IPAM"]["Config"] or () if "Subnet" in part]
    return found
