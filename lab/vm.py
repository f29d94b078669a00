"""`python -m lab.vm`: a real Debian 13 machine with its own kernel, provisioned by the same playbook; `make test-vm`.

Its disk is made from the image of a bare machine of the lab and Debian's kernel. It runs under qemu's emulation, which
needs nothing of the processor, so it is slow: minutes for what takes a container seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from lab import images
from lab.commands import out, play, say
from lab.lab import LABS
from lab.machines import inventory, newest
from lab.ssh import PORT, Host, Ssh, write_private
from slipway.errors import Exit, SlipwayError

NAME = "vm"
SYSTEM = "debian13"
IMAGE = f"{images.REPOSITORY}:vm"
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs"}
"""Program -> the Debian package that has it."""
DISK = "8G"
MEMORY, PROCESSORS = "2048", "2"
BOOTS_WITHIN = 300.0
"""Seconds; half a minute is usual."""
HEALTH = "http://127.0.0.1:4000/api/health"
ASK = f"import urllib.request as u; print(u.urlopen('{HEALTH}', timeout=20).read().decode())"

SEEN = {
    "kernel": "uname -r",
    "virtualization": "systemd-detect-virt",
    "cgroups": "stat -fc %T /sys/fs/cgroup",
    "system": "systemctl is-system-running",
    "failed units": "systemctl list-units --failed --plain --no-legend | cut -d' ' -f1 | tr '\\n' ' '",
    "modules of Docker": "lsmod | grep -cE '^(overlay|br_netfilter|bridge|veth|nf_nat|xt_|nft_)'",
    "rules of Docker": "sudo iptables-save -t nat 2>/dev/null | grep -c DOCKER",
    "clock": "cat /sys/devices/system/clocksource/clocksource0/current_clocksource",
    "forwarding": "cat /proc/sys/net/ipv4/ip_forward",
    "swap": "swapon --show=NAME --noheadings | wc -l",
    "Docker": "sudo docker info --format '{{.ServerVersion}} {{.Driver}} {{.CgroupDriver}} {{.CgroupVersion}}'",
    "Docker's security": "sudo docker info --format '{{.SecurityOptions}}'",
    "Docker's warnings": "sudo docker info --format '{{json .Warnings}}'",
}
"""What is looked at on it, to be compared with what a container shows."""


class Vm:
    """The machine, from :meth:`make` to :meth:`remove`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ssh = Ssh(folder)
        self._qemu: subprocess.Popen[bytes] | None = None
        self._port = _free_port()
        self.inventory = folder / "inventory.yml"

    def make(self) -> None:
        """Make its disk, its kernel beside it, and what is needed to log in to it."""
        self._folder.mkdir(mode=0o700, parents=True)
        self._ssh.make_key(NAME)
        images.bare(SYSTEM)
        build = ["docker", "build", "--quiet", "--build-arg", f"MACHINE={images.REPOSITORY}:{SYSTEM}", "--tag", IMAGE]
        out(*build, "--file", str(images.CONTEXT / "vm.Dockerfile"), str(images.CONTEXT), patience=900)
        root = self._folder / "root"
        root.mkdir()
        container = out("docker", "create", IMAGE).strip()
        try:
            tar = self._folder / "root.tar"
            out("docker", "export", "--output", str(tar), container)
        finally:
            out("docker", "rm", container)
        out("tar", "--extract", "--numeric-owner", "--file", str(tar), "--directory", str(root))
        tar.unlink()
        host = Host(NAME, "127.0.0.1", self._port)
        self._settle(root, host)
        for link in ("vmlinuz", "initrd.img"):
            shutil.copy(root / "boot" / (root / link).readlink().name, self._folder / link)
        # The folder becomes the disk's root.
        out("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(self._folder / "disk"), DISK)
        shutil.rmtree(root)
        told = inventory([host], {"app": [NAME]}, self._folder, "")
        write_private(self.inventory, yaml.safe_dump(told, sort_keys=False, width=160))
        lock = {"images": newest(images.built())}
        write_private(self._folder / "images.lock.yml", yaml.safe_dump(lock, sort_keys=False, width=160))

    def boot(self) -> None:
        """Boot it, and wait until it can be logged in to."""
        emulation = ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]
        size = ["-smp", PROCESSORS, "-m", MEMORY]
        disk = ["-drive", f"file={self._folder / 'disk'},format=raw,if=virtio,cache=unsafe"]
        net = [
            "-netdev",
            f"user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:{PORT}",
            "-device",
            "virtio-net-pci,netdev=net",
        ]
        kernel = ["-kernel", str(self._folder / "vmlinuz"), "-initrd", str(self._folder / "initrd.img")]
        kernel += ["-append", "root=/dev/vda rw console=ttyS0 quiet"]
        console = ["-display", "none", "-monitor", "none", "-serial", f"file:{self._folder / 'console'}"]
        self._qemu = subprocess.Popen(
            ["qemu-system-x86_64", *emulation, *size, *disk, *net, *kernel, *console], stdin=subprocess.DEVNULL
        )
        self.wait()

    def wait(self, but_not: str = "") -> str:
        """Wait until it can be logged in to, in another boot than a former one; gives the id of this one."""
        end = time.monotonic() + BOOTS_WITHIN
        while time.monotonic() < end:
            with contextlib.suppress(SlipwayError):
                boot = self.run("cat /proc/sys/kernel/random/boot_id")
                if boot != but_not:
                    self._ssh.open_tunnel(NAME)
                    return boot
            if self._qemu and self._qemu.poll() is not None:
                break
            time.sleep(0.5)
        console = self._folder / "console"
        last = console.read_text(errors="replace")[-2000:] if console.exists() else ""
        raise SlipwayError("The machine did not boot.", "See what its console said.", details=last)

    def run(self, command: str) -> str:
        """Run a command on it as its user."""
        quick = ["-o", "ConnectTimeout=5", "-o", "BatchMode=yes"]
        return out("ssh", *self._ssh.options, *quick, NAME, command, patience=120).strip()

    def remove(self) -> None:
        """Remove it with all that was made for it; the packages stay."""
        self._ssh.end()
        if self._qemu:
            self._qemu.send_signal(signal.SIGTERM)
            self._qemu.wait(timeout=30)
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(SlipwayError):
            out("docker", "image", "rm", IMAGE)
        with contextlib.suppress(OSError):  # there are those of a lab in it
            LABS.rmdir()

    def _settle(self, root: Path, host: Host) -> None:
        """What an installer asks for: a name, a resolver, and here who may log in and what it is known by."""
        (root / "etc/hostname").write_text(f"{NAME}\n")
        (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {NAME}\n")
        # The emulated network's own resolver asks those of this machine.
        (root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
        (root / "etc/ssh/authorized_keys/operator").write_text(self._ssh.public_key)
        (root / ".dockerenv").unlink(missing_ok=True)
        key = root / "etc/ssh/ssh_host_ed25519_key"
        out("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", NAME, "-f", str(key))
        self._ssh.know({host: key.with_suffix(".pub").read_text()})


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long it takes."""
    say(f"… {what}")
    began = time.monotonic()
    yield
    say(f"  {what}: {time.monotonic() - began:.0f} s")


def test(vm: Vm) -> None:
    """Make it, provision it, look at it, and boot it again."""
    with timed("make its disk from Debian packages"):
        vm.make()
    with timed("boot it"):
        vm.boot()
    play_it = ["-i", "lab/environment.yml", "-i", str(vm.inventory), "playbooks/site.yml"]
    with timed("provision it and deploy"):
        play(*play_it)
    with timed("run the same playbook again"):
        play(*play_it)
    say(vm.run("sudo slipway status"))
    _ask(vm)
    for what, command in SEEN.items():
        say(f"  {what:<22} {vm.run(command + ' || true')}")
    before = vm.run("cat /proc/sys/kernel/random/boot_id")
    with timed("restart it"), contextlib.suppress(SlipwayError):
        vm.run("sudo systemctl reboot")
    with timed("be reached, and serve, after that"):
        vm.wait(but_not=before)
        _wait_to_serve(vm)
    say(vm.run("sudo slipway status"))


def main() -> int:
    """Test with a machine; answers the exit code."""
    if os.geteuid():
        sys.stderr.write("Only root can make the machine's disk.\nType make test-vm, which sees to it.\n")
        return Exit.ERROR
    vm = Vm(LABS / NAME)
    # Whoever ends it is left with nothing of it, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(Exit.ERROR))
    try:
        vm.remove()
        _install()
        images.prepare()
        test(vm)
    except SlipwayError as error:
        sys.stderr.write("".join(f"{line}\n" for line in (error.what, error.do_next, error.details) if line))
        return error.exit
    finally:
        vm.remove()
    say("A real Debian 13 was provisioned, served, and served again after it was restarted.")
    return Exit.OK


def _install() -> None:
    packages = [
        package
        for program, package in PROGRAMS.items()
        if not shutil.which(program, path="/usr/bin:/usr/sbin:/sbin:/bin")
    ]
    if packages:
        out("apt-get", "update", "-q")
        out(
            "apt-get", "install", "-qy", "--no-install-recommends", *packages, env={"DEBIAN_FRONTEND": "noninteractive"}
        )


def _ask(vm: Vm) -> None:
    answer = vm.run(f'python3 -c "{ASK}"')
    if json.loads(answer)["status"] != "ok":
        raise SlipwayError(f"The backend answers {answer}.", "See what it says: slipway logs.")
    say(f"  {HEALTH} answers {answer}")


def _wait_to_serve(vm: Vm) -> None:
    end = time.monotonic() + BOOTS_WITHIN
    while True:
        try:
            return _ask(vm)
        except SlipwayError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
