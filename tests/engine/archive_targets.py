"""Targets of an archive on this machine: an S3 store with TLS by a private CA, and an SFTP host."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from lab.commands import KIT, alone
from lab.registry import certificate
from tests.engine.conftest import free_port

HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds."""
FILES = 1024
"""That a session of the SSH server may have open."""
SERVE = """
import sys
import uvicorn
from moto.server import DomainDispatcherApplication, create_backend_app

# By another server than moto's own, which ends each connection over TLS without saying so.
host, port, cert, key = sys.argv[1:]
app = DomainDispatcherApplication(create_backend_app)
uvicorn.run(app, interface="wsgi", host=host, port=int(port), ssl_certfile=cert, ssl_keyfile=key)
"""
REQUIREMENTS = Path(__file__).with_name("requirements-s3.txt")


@contextmanager
def s3(folder: Path, bucket: str) -> Iterator[dict[str, Any]]:
    """A store with one bucket, as `archive` of a request names it."""
    ca, ca_key, cert, key = (str(folder / name) for name in ("ca.pem", "ca.key", "server.pem", "server.key"))
    certificate(ca_key, ca, "Slipway test CA", "basicConstraints=critical,CA:TRUE")
    certificate(key, cert, HOST, f"subjectAltName=IP:{HOST}", signed_by=("-CA", ca, "-CAkey", ca_key))
    port = free_port()
    command = [_python(), "-c", SERVE, HOST, str(port), cert, key]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            context = ssl.create_default_context(cafile=ca)
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    urlopen(Request(f"https://{HOST}:{port}/{bucket}", method="PUT"), context=context).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
            yield {
                "url": f"s3://{HOST}:{port}/{bucket}/slipway",
                "access_key": "AKIAIOSFODNN7EXAMPLE",
                "secret_key": "never-to-be-seen-s3-key-0123456789",
                "ca": Path(ca).read_text(),
            }
        finally:
            server.terminate()


def _python() -> str:
    """A Python that has moto; made once, and anew when what it is to have changes."""
    key = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    home = KIT / ".cache" / f"s3-{key}"
    with alone("s3"):
        if not home.exists():
            making = home.with_name(f"{home.name}.{os.getpid()}")
            subprocess.run([sys.executable, "-m", "venv", str(making)], check=True)
            install = ["install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
            python = str(making / "bin" / "python")
            subprocess.run([python, "-m", "pip", *install, "--requirement", str(REQUIREMENTS)], check=True)
            making.rename(home)
    return str(home / "bin" / "python")


class Sftp:
    """An SSH server on loopback, for the user that runs the tests, which shows nothing but files.

    A session may have as many files open as one of a server that systemd started.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        self.start()

    def start(self) -> None:
        """Have it take connections."""
        Path("/run/sshd").mkdir(exist_ok=True)
        options = {
            "Port": self.port,
            "ListenAddress": HOST,
            "HostKey": self.folder / "host",
            "AuthorizedKeysFile": self.folder / "authorized",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PermitRootLogin": "prohibit-password",
            "PasswordAuthentication": "no",
            "Subsystem": "sftp internal-sftp",
            "ForceCommand": "internal-sftp",
        }
        words = [f"-o{name}={value}" for name, value in options.items()]
        command = ["prlimit", f"--nofile={FILES}:{FILES}", "/usr/sbin/sshd", "-D", "-f", "/dev/null", *words]
        self.server = subprocess.Popen(command, start_new_session=True)
        wait_until(lambda: answers(self.port))

    def end(self) -> None:
        """End it with the connections that it has: each is a process of its own group."""
        for process in children(self.server.pid):
            os.kill(process, signal.SIGKILL)
        self.server.kill()
        self.server.wait()

    @property
    def target(self) -> dict[str, str]:
        """As an archive of a request names it, but for the password."""
        host_key = " ".join((self.folder / "host.pub").read_text().split()[:2])
        return {
            "url": f"sftp://root@{HOST}:{self.port}{self.folder}/archive",
            "ssh_key": (self.folder / "user").read_text(),
            "known_hosts": f"[{HOST}]:{self.port} {host_key}\n",
        }


@contextmanager
def sftp(folder: Path) -> Iterator[Sftp]:
    """One that ends."""
    server = Sftp(folder)
    try:
        yield server
    finally:
        server.end()


def children(process: int) -> list[int]:
    """The processes below one, deepest first."""
    found = [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return [below for one in found for below in [*children(one), one]]


def answers(port: int) -> bool:
    """Whether something takes connections there."""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def wait_until(moment: Callable[[], bool]) -> None:
    """Until it is so, or fail."""
    deadline = time.monotonic() + 10
    while not moment():
        assert time.monotonic() < deadline
        time.sleep(0.05)
