"""A fresh Debian machine to try the README on: a systemd container with nothing of the kit on it.

It is started from the image of a bare host of the lab, and gets from this machine what its administrator would have
given it: the certificates to trust, pip's configuration and the name servers.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import images

ROOT = Path(__file__).parents[2]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_CONFIG = Path("/etc/pip.conf")
NAME_SERVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
"""Where this machine keeps the servers it asks; the first one is the truth behind a resolver on loopback."""

CHECKOUT = "slipway"
BUNDLE = "/var/tmp/slipway.bundle"  # noqa: S108 - on the machine, which nobody else uses
PATIENCE = 900.0
"""Seconds that one command may take before it counts as hanging."""


@dataclass(frozen=True)
class Ran:
    """What a command printed (both streams, in order), how it ended, and the seconds it took."""

    command: str
    code: int
    output: str
    seconds: float

    def ok(self) -> Ran:
        """The same, or AssertionError with what it printed."""
        assert self.code == 0, f"`{self.command}` ended with {self.code} after {self.seconds:.0f} s:\n{self.output}"
        return self


class Machine:
    """One fresh machine. `user` is who types: `root`, on a machine without sudo, or `operator`, who has it."""

    def __init__(self, name: str, *, system: str, user: str) -> None:
        self.name = name
        self.system = system
        self.user = user

    def __enter__(self) -> Machine:
        self.remove()
        try:
            self._boot()
            self._settle()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def type(self, command: str) -> Ran:
        """Type a command as the machine's user, in a login shell of its own."""
        return self._run(["runuser", "--login", self.user, "--command", command], said=command)

    def make(self, target: str) -> Ran:
        """Type `make …` in the checkout."""
        return self.type(f"cd {CHECKOUT} && make {target}")

    def admin(self, command: str) -> Ran:
        """Run a command as root, whoever types otherwise: to look, not to help."""
        return self._run(["sh", "-c", command], said=command).ok()

    def lines(self, command: str) -> list[str]:
        """The lines that such a command prints."""
        return self.admin(command).output.split("\n")[:-1]

    def install_what_the_readme_names(self) -> Ran:
        """The one thing that a minimal Debian lacks."""
        sudo = "" if self.user == "root" else "sudo "
        return self.type(f"{sudo}apt-get update -q && {sudo}apt-get install -qy git make python3-venv").ok()

    def clone(self) -> Ran:
        """Clone what is committed here."""
        with tempfile.TemporaryDirectory() as folder:
            # By way of a repository of its own, so that a detached HEAD becomes a branch as well.
            bare, bundle = Path(folder, "slipway.git"), Path(folder, "slipway.bundle")
            _git("init", "--quiet", "--bare", "--initial-branch=main", bare)
            _git("-C", ROOT, "push", "--quiet", bare, "HEAD:refs/heads/main")
            _git("-C", bare, "bundle", "create", "--quiet", bundle, "HEAD", "main")
            self._put(bundle.read_bytes(), BUNDLE)
        return self.type(f"git clone --quiet {BUNDLE} {CHECKOUT}").ok()

    def containers(self) -> dict[str, str]:
        """Every container of the machine that runs: its id and since when."""
        form = shlex.quote("{{.Id}} {{.State.StartedAt}}")
        lines = self.lines(f"docker ps --quiet --no-trunc | xargs --no-run-if-empty docker inspect --format {form}")
        return dict(line.split(" ", 1) for line in lines)

    def remove(self) -> None:
        """Remove the machine with all it holds; nothing to remove is fine."""
        for command in (
            ["docker", "rm", "--force", "--volumes", self.name],
            ["docker", "volume", "rm", "--force", f"{self.name}-docker", f"{self.name}-containerd"],
        ):
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def _boot(self) -> None:
        command = f"docker run --detach --name {self.name} --hostname {self.name} --privileged --cgroupns private"
        command += " --tmpfs /run --tmpfs /tmp"
        # overlayfs does not stack on overlayfs, so what the inner engine keeps lies on volumes.
        command += f" --volume {self.name}-docker:/var/lib/docker --volume {self.name}-containerd:/var/lib/containerd"
        command += f" {images.bare(self.system)} /sbin/init {images.init()}"
        _docker(command.split())
        end = time.monotonic() + 60
        while self._run(["systemctl", "is-active", "--quiet", "ssh.service"], said="systemctl").code != 0:
            assert time.monotonic() < end, f"{self.name} did not boot within a minute"
            time.sleep(0.5)

    def _settle(self) -> None:
        """What the administrator of a machine on this network has done before anyone logs in."""
        # Docker's own resolver is on the machine's loopback, where the containers inside it cannot ask.
        servers = next(file for file in NAME_SERVERS if file.is_file())
        self._put(servers.read_bytes(), "/etc/resolv.conf")
        if CERTIFICATES.is_file():
            self._put(CERTIFICATES.read_bytes(), "/usr/local/share/ca-certificates/network.crt")
            self.admin("update-ca-certificates")
        if PIP_CONFIG.is_file():
            self._put(PIP_CONFIG.read_bytes(), "/etc/pip.conf")
        if self.user == "root":
            # A minimal installation has neither, and root needs neither.
            self.admin("SUDO_FORCE_REMOVE=yes apt-get purge -qy sudo python3-apt")

    def _run(self, command: Sequence[str], *, said: str) -> Ran:
        began = time.monotonic()
        finished = subprocess.run(
            ["docker", "exec", self.name, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Ran(said, finished.returncode, finished.stdout, time.monotonic() - began)

    def _put(self, content: bytes, path: str) -> None:
        # Through a shell inside: `docker cp` cannot replace a file that Docker has mounted.
        subprocess.run(
            ["docker", "exec", "--interactive", self.name, "sh", "-c", f"cat > {path}"], input=content, check=True
        )


def phases(output: str) -> str:
    """What a run said of where its time went; empty when it did not come to its end."""
    return "".join(re.findall(r"^ +took +(.+)$", output, re.MULTILINE))


def _docker(command: Sequence[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _git(*arguments: str | Path) -> None:
    subprocess.run(["git", *arguments], check=True)
