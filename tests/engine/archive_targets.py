"""Targets of an archive on this machine: an S3 store with TLS by a private CA, and an SFTP host."""

from __future__ import annotations

import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from lab.registry import certificate
from tests.engine.conftest import PREFIX, docker, free_port

HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds."""
SFTP_IMAGE = f"{PREFIX}sftp:1"
SFTP = """
FROM {base}
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=secret,id=ca \
    if [ -s /run/secrets/ca ]; then ca="-o Acquire::https::CAInfo=/run/secrets/ca"; fi; \
    apt-get $ca update && apt-get $ca install --yes --no-install-recommends openssh-server \
    && mkdir -p /run/sshd && useradd --create-home --password '*' backup-user && rm /etc/ssh/ssh_host_*
"""
SERVE = """
import sys
import uvicorn
from moto.server import DomainDispatcherApplication, create_backend_app

# By another server than moto's own, which ends each connection over TLS without saying so.
host, port, cert, key = sys.argv[1:]
app = DomainDispatcherApplication(create_backend_app)
uvicorn.run(app, interface="wsgi", host=host, port=int(port), ssl_certfile=cert, ssl_keyfile=key)
"""
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


@contextmanager
def s3(folder: Path, bucket: str) -> Iterator[dict[str, Any]]:
    """A store with one bucket, as `archive` of a request names it."""
    ca, ca_key, cert, key = (str(folder / name) for name in ("ca.pem", "ca.key", "server.pem", "server.key"))
    certificate(ca_key, ca, "Slipway test CA", "basicConstraints=critical,CA:TRUE")
    certificate(key, cert, HOST, f"subjectAltName=IP:{HOST}", signed_by=("-CA", ca, "-CAkey", ca_key))
    port = free_port()
    command = [sys.executable, "-c", SERVE, HOST, str(port), cert, key]
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


@contextmanager
def sftp(folder: Path) -> Iterator[dict[str, Any]]:
    """A host with a user that logs in by a key."""
    listing = ["image", "ls", "--filter", "reference=slipway/base:trixie-*", "--format", "{{.Repository}}:{{.Tag}}"]
    base = max(docker(*listing).split())
    secret = ["--secret", f"id=ca,src={BUNDLE}"] if BUNDLE.exists() else []
    subprocess.run(
        ["docker", "buildx", "build", "--quiet", *secret, "--tag", SFTP_IMAGE, "-"],
        input=SFTP.format(base=base), text=True, check=True, capture_output=True,
    )  # fmt: skip
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)], check=True)
    port, name = free_port(), f"{PREFIX}sftp"
    script = (
        "cp /keys/host /etc/ssh/host && chmod 600 /etc/ssh/host && install -d -o backup-user -g backup-user -m 700 "
        "/home/backup-user/.ssh && install -o backup-user -m 600 /keys/user.pub /home/backup-user/.ssh/authorized_keys "
        f"&& exec /usr/sbin/sshd -D -e -h /etc/ssh/host -p {port} -o ListenAddress={HOST} -o PasswordAuthentication=no "
        "-o UsePAM=no"
    )
    docker("run", "--detach", "--name", name, "--network=host", "--volume", f"{folder}:/keys:ro", SFTP_IMAGE,
           "bash", "-c", script)  # fmt: skip
    try:
        yield {
            "url": f"sftp://backup-user@{HOST}:{port}/home/backup-user/archive",
            "ssh_key": (folder / "user").read_text(),
            "known_hosts": f"[{HOST}]:{port} {(folder / 'host.pub').read_text()}",
        }
    finally:
        docker("rm", "--force", name, check=False)
        docker("image", "rm", "--force", SFTP_IMAGE, check=False)
