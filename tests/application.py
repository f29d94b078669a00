"""The application that tests deploy (tests/engine/app), as images in the registry of this machine."""

from __future__ import annotations

import http.client
import subprocess
from pathlib import Path

import pytest
import yaml

KIT = Path(__file__).parents[1]
REGISTRY = "127.0.0.1:5000"
BACKEND = f"{REGISTRY}/slipway/backend"
REVISIONS = {"1.0": "0001", "1.1": "0001", "2.0": "0001 0002"}
"""Version of the application -> the revisions of its schema, oldest first."""


def push(repository: str) -> None:
    """Build every version and push it. Fails the test where this machine was not set up."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.fail("There is no Docker engine on this machine. Run playbooks/provision.yml first.")
    base = _backend_image()
    for version, revisions in REVISIONS.items():
        arguments = {"BASE": base, "VERSION": version, "REVISIONS": revisions}
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        image = f"{repository}:{version}"
        _docker("build", "--quiet", f"--tag={image}", *given, str(KIT / "tests" / "engine" / "app"))
        _docker("push", "--quiet", image)


def remove(repository: str) -> None:
    """Remove them here and from the registry."""
    digests = _docker("images", "--digests", "--format", "{{.Digest}}", repository).split()
    for image in set(_docker("images", "--quiet", repository).split()):
        _docker("image", "rm", "--force", image)
    for digest in {digest for digest in digests if digest.startswith("sha256:")}:
        connection = http.client.HTTPConnection(REGISTRY, timeout=5)
        connection.request("DELETE", f"/v2/{repository.partition('/')[2]}/manifests/{digest}")
        connection.getresponse().read()
        connection.close()


def _backend_image() -> str:
    """The newest backend image of this machine."""
    lock = KIT / "inventories" / "local" / "images.lock.yml"
    tags = yaml.safe_load(lock.read_text())["images"].get(BACKEND, {}) if lock.exists() else {}
    if not tags:
        pytest.fail("There is no backend image on this machine. Run playbooks/images.yml first.")
    return f"{BACKEND}:{list(tags)[-1]}"


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()
