"""Builds programs that behave like four real ones (tests/conformance/images) into the registry of this machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.engine.conftest import backend_image, docker

CONTEXT = Path(__file__).with_name("images")
CA = "/etc/ssl/certs/ca-certificates.crt"
FIRST, SECOND, BROKEN = "0001", "0001 0002", "0001 0002 0003"
VERSIONS = {
    # Version -> the revisions of its schema, and how it behaves.
    "1.0": (FIRST, ""),
    "2.0": (SECOND, ""),
    "3.0": (BROKEN, ""),
    "3.1": (SECOND, "unhealthy"),
    "3.2": (SECOND, "crashes"),
}
LISTEN = {"clearsplit": 8000, "todo": 8000, "semiont": 4000, "neuronip": 8082}
PEERS = {"auth-server": 8080, "ai-agent": 8001, "frontend": 3000}
"""Programs that run beside them, in one version alone."""
PEERS_OF = {
    "clearsplit": [],
    "todo": ["auth-server", "ai-agent"],
    "semiont": ["frontend"],
    "neuronip": ["frontend"],
}
DATABASES = {"clearsplit": "clearsplit", "semiont": "semiont", "todo": "todo_db", "neuronip": "neuronip"}
"""System -> its database; the role is called like the system."""


def build_tools(tag: str) -> None:
    """Build the image that most of the others start from."""
    bases = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "slipway/base").split()
    base = next(image for image in bases if ":trixie-" in image)
    arguments = ["--file", str(CONTEXT / "tools.Dockerfile"), f"--secret=id=ca,src={CA}", f"--build-arg=BASE={base}"]
    docker("build", "--quiet", f"--tag={tag}", *arguments, str(CONTEXT))


def build_system(system: str, tools: str, repository: str, versions: Iterable[str] = VERSIONS) -> None:
    """Build and push the images of one system, each under its name in `repository`."""
    for version in versions:
        revisions, behaviour = VERSIONS[version]
        arguments = {"SYSTEM": system, "REVISIONS": revisions, "BEHAVIOUR": behaviour, "LISTEN": str(LISTEN[system])}
        base = backend_image() if system == "neuronip" else tools
        _build(f"{repository}/{system}:{version}", system, BASE=base, VERSION=version, **arguments)
    for peer in PEERS_OF[system]:
        arguments = {"SYSTEM": "peer", "REVISIONS": "", "LISTEN": str(PEERS[peer])}
        _build(f"{repository}/{peer}:1.0", "peer", BASE=tools, VERSION="1.0", **arguments)


def _build(image: str, target: str, **arguments: str) -> None:
    given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    docker("build", "--quiet", f"--tag={image}", f"--target={target}", *given, str(CONTEXT))
    docker("push", "--quiet", image)
