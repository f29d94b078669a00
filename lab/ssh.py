"""How a lab's hosts are logged in to: its own key, its own known hosts, and nothing of an operator's ~/.ssh."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.commands import out
from slipway.errors import SlipwayError

USER = "operator"
"""Who logs in, and may use sudo. Root may not log in."""
PORT = 22
REGISTRY_PORT = 5000
"""Where hosts find this machine's registry, on their own loopback."""
ENDS_WITHIN = 5.0
"""Seconds that an SSH process gets to end by itself."""


@dataclass(frozen=True)
class Host:
    """A host by its name and where it can be reached."""

    name: str
    address: str
    port: int = PORT


class Ssh:
    """What `folder` keeps of logging in, and the SSH processes that go by it.

    `registry_port` is the loopback port here of what hosts shall see as the registry on their own loopback.
    """

    def __init__(self, folder: Path, *, registry_port: int = REGISTRY_PORT) -> None:
        self._folder = folder
        self._registry_port = registry_port

    @property
    def options(self) -> list[str]:
        """How any SSH program logs in, by name or address."""
        return options(self._folder)

    @property
    def public_key(self) -> str:
        """What hosts have to let in."""
        return (self._folder / "key.pub").read_text()

    def make_key(self, comment: str) -> None:
        """Make a key, once."""
        if not (self._folder / "key").exists():
            out("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(self._folder / "key"))

    def know(self, keys: Mapping[Host, str]) -> None:
        """Expect these hosts with these keys, and no others."""
        write_private(self._folder / "known_hosts", "".join(known_host(host, key) for host, key in keys.items()))
        write_private(self._folder / "ssh_config", config(list(keys), self._folder))

    def open_tunnel(self, host: str) -> None:
        """Show this machine's registry to a host, on its loopback, where Docker wants neither TLS nor a login.

        The tunnel ends with the host, and one that is left of before it lost its power is ended here.
        """
        self._end(self.processes(host))
        command = ["ssh", *self.options, "-f", "-N", "-o", "ExitOnForwardFailure=yes", "-o", "ControlPath=none"]
        forward = ["-R", f"127.0.0.1:{REGISTRY_PORT}:127.0.0.1:{self._registry_port}"]
        log = self._folder / f"tunnel-{host}.log"
        with log.open("w") as said:
            # It goes on in the background, so nobody may wait for the end of what it prints.
            code = subprocess.run(
                [*command, *forward, host], stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=60, check=False
            ).returncode
        if code:
            raise SlipwayError(
                f"{host} does not let this machine open a tunnel.", "Remove it and try again.", details=log.read_text()
            )

    def processes(self, tunnel_to: str = "") -> Iterator[int]:
        """SSH processes that go by the folder, or the tunnel to one host: they have it among their words."""
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError, UnicodeDecodeError):
                if process.name.isdecimal() and (process / "comm").read_text() == "ssh\n":
                    words = (process / "cmdline").read_bytes().decode().rstrip("\0").split("\0")
                    ours = any(f"{self._folder}/" in word for word in words)
                    if ours and (not tunnel_to or ("-N" in words and words[-1] == tunnel_to)):
                        yield int(process.name)

    def end(self) -> None:
        """End all of them."""
        self._end(self.processes())

    def _end(self, processes: Iterator[int]) -> None:
        ending = list(processes)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in ending:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
            end = time.monotonic() + ENDS_WITHIN
            while ending and time.monotonic() < end:
                ending = [process for process in ending if Path(f"/proc/{process}").exists()]
                time.sleep(0.01)


def options(folder: Path) -> list[str]:
    """How any SSH program logs in to the hosts of the lab that keeps its files in this folder."""
    return ["-F", str(folder / "ssh_config")]


def known_host(host: Host, key: str) -> str:
    """The line of a known_hosts file about it."""
    named = host.address if host.port == PORT else f"[{host.address}]:{host.port}"
    return f"{named} {key.strip()}\n"


def config(hosts: list[Host], folder: Path) -> str:
    """The file behind :func:`options`: each host by its name and by its address."""
    each = [f"Host {one.name} {one.address}\n  HostName {one.address}\n  Port {one.port}\n" for one in hosts]
    common = f"""\
Host *
  User {USER}
  IdentityFile "{folder / "key"}"
  IdentitiesOnly yes
  UserKnownHostsFile "{folder / "known_hosts"}"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  ServerAliveInterval 5
  ServerAliveCountMax 3
"""
    return "".join([*each, common])


def write_private(file: Path, content: str) -> None:
    """Write a file that only its owner reads; whoever reads it meanwhile finds the old one or the new one."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as written:
        written.write(content)
    Path(written.name).rename(file)
