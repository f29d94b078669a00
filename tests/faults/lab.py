"""Machines of their own to do harm to: Debian with systemd, SSH and a Docker engine, each in a container.

They are hosts of the lab, like the machines of the molecule scenarios. Their processes and files can be seen from here,
so a test looks and kills without asking the machine, and within milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab import lab
from lab.machines import MACHINES

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
"""Keeps apart what two test runs on one machine make, and their networks."""
PROJECT = f"slipway-test{WORKER}-faults"
NETWORK = f"10.213.{100 + zlib.crc32(WORKER.encode()) % 100 if WORKER else 3}"
FLEET_PROJECT = f"slipway-test{WORKER}-fleet"
FLEET_NETWORK = f"10.213.{201 + zlib.crc32(WORKER.encode()) % 50 if WORKER else 7}"
MACHINE = "app1"
PATIENCE = 60.0
"""Seconds that something may take which takes a few."""


class Lab:
    """Machines from :meth:`boot` to :meth:`remove`; what the controller keeps of them lies in `folder`/lab.

    `registry_port` is the loopback port here of what they shall see as the registry on their own loopback. With
    `engine` they come with the Docker engine that the kit installs, which saves doing it. Two labs at a time need two
    projects and two networks (the first three octets).
    """

    def __init__(
        self,
        folder: Path,
        registry_port: int,
        *,
        machines: Sequence[str] = (MACHINE,),
        engine: bool = False,
        project: str = PROJECT,
        network: str = NETWORK,
    ) -> None:
        self.folder = folder
        self._engine = engine
        self._lab = lab.Lab(project, folder / "lab", network=network, registry_port=registry_port)
        self.machines = {
            name: Machine(name, MACHINES[name].host(network).address, self._lab.container(name), self._up)
            for name in machines
        }

    @property
    def machine(self) -> Machine:
        """The machine, or the first of several."""
        return next(iter(self.machines.values()))

    def group(self, group: str) -> list[Machine]:
        """The machines that are for this group of an inventory."""
        return [machine for name, machine in self.machines.items() if MACHINES[name].group == group]

    def boot(self) -> None:
        """Boot all of them, and make them known, with the registry on their loopback."""
        self.remove()
        self._up(list(self.machines))
        for machine in self.machines.values():
            machine.look_up()

    def remove(self) -> None:
        """Remove them with all they hold; nothing to remove is fine, and nothing is left."""
        self._lab.down()
        assert self._lab.left() == []

    @property
    def ssh_options(self) -> list[str]:
        """How to log in; a machine that is gone is noticed soon."""
        return [*self._lab.ssh_options, "-o", "ServerAliveInterval=2", "-o", "ServerAliveCountMax=2"]

    def _up(self, machines: Sequence[str]) -> None:
        self._lab.up([MACHINES[name] for name in machines], engine=self._engine, registry=False)


class Machine:
    """One of them, which is in a `container` here; `up` boots machines by their names."""

    def __init__(self, name: str, address: str, container: str, up: Callable[[Sequence[str]], None]) -> None:
        self.name = name
        self.address = address
        self._container = container
        self._up = up
        self._init = 0

    def look_up(self) -> None:
        """Find its first process, once it has booted."""
        self._init = int(_out(["docker", "inspect", "--format", "{{.State.Pid}}", self._container]))

    # --- looking ---------------------------------------------------------------------------------------------------

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a command on it as root, and give its stdout. Raises AssertionError when it fails."""
        return _out(["docker", "exec", "--interactive", self._container, *command], stdin=stdin)

    def docker(self, *arguments: str) -> str:
        """Ask its Docker engine."""
        return _out(["docker", "--host", f"unix://{self.path('/run/docker.sock')}", *arguments]).strip()

    def path(self, path: str) -> Path:
        """A file of it, as it can be reached from here."""
        return Path(f"/proc/{self._init}/root{path}")

    def engine(self, verb: str) -> int | None:
        """The process of a `slipway <verb>` that runs on it, by its number here."""
        space = _space(self._init)
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                with contextlib.suppress(OSError):
                    words = (process / "cmdline").read_bytes().split(b"\0")
                    called = len(words) > 2 and words[1].endswith(b"/slipway") and verb.encode() in words
                    if called and _space(int(process.name)) == space:
                        return int(process.name)
        return None

    # --- harm ------------------------------------------------------------------------------------------------------

    def lose_power(self) -> None:
        """Everything on it ends at once, and what was not on its disk is gone."""
        _out(["docker", "kill", self._container])

    def power_on(self) -> None:
        """Boot it again, and wait until it can be reached."""
        self._up([self.name])
        self.look_up()

    def reboot(self) -> None:
        """Reboot it as an administrator does, and wait until it can be reached again."""
        self.run("systemctl", "--no-block", "reboot")
        _out(["docker", "wait", self._container])
        self.power_on()

    @contextlib.contextmanager
    def cut_off(self) -> Iterator[None]:
        """Nobody can log in meanwhile, and who was is thrown out; what runs on it runs on."""
        self.run("systemctl", "stop", "ssh.socket", "ssh")
        self.run("sh", "-c", "pkill -KILL -x 'sshd|sshd-session' || true")
        try:
            yield
        finally:
            self.run("systemctl", "start", "ssh")
            # The registry is reached through a connection as well.
            self._up([self.name])

    def kill_engine(self, verb: str, moment: Callable[[], object] = lambda: True) -> None:
        """Kill a call with no warning: the next one of `verb`, as soon as it runs and `moment` is true."""
        process = 0

        def has_come() -> bool:
            nonlocal process
            process = self.engine(verb) or 0
            return bool(process and moment())

        wait_for(has_come, f"the moment to kill slipway {verb}", every=0.005)
        os.kill(process, signal.SIGKILL)

    def restart_docker(self) -> None:
        """Restart the Docker daemon, as an upgrade of its package does."""
        self.run("systemctl", "restart", "docker")

    def kill_container(self, name: str) -> None:
        """Kill the process of a container with no warning. `docker kill` would tell Docker to leave it dead."""
        self.run("kill", "-9", self.docker("inspect", "--format", "{{.State.Pid}}", name))

    @contextlib.contextmanager
    def small(self, folder: str, megabytes: int) -> Iterator[Path]:
        """Have a folder lie on a disk of this size meanwhile; yields it as it can be reached from here."""
        copy = f"{folder}.whole"
        self.run("sh", "-c", f"mv {folder} {copy} && mkdir -m 0700 {folder}")
        self.run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", folder)
        self.run("cp", "-a", f"{copy}/.", folder)
        try:
            yield self.path(folder)
        finally:
            self.run("sh", "-c", f"rm -rf {copy} && mkdir {copy} && cp -a {folder}/. {copy}/")
            self.run("sh", "-c", f"umount {folder} && rmdir {folder} && mv {copy} {folder}")


def wait_for(moment: Callable[[], object], what: str, *, within: float = PATIENCE, every: float = 0.05) -> None:
    """Wait until `moment` is true; AssertionError when it is not in `within` seconds."""
    end = time.monotonic() + within
    while not moment():
        assert time.monotonic() < end, f"{what} did not come within {within:g} s"
        time.sleep(every)


def _space(process: int) -> str:
    return str(Path(f"/proc/{process}/ns/pid").readlink())


def _out(command: list[str], *, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
