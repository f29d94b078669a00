"""The image of PostgreSQL on the engine of this machine, as images/postgres makes it from the base that is here."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from lab.images import base
from tests.engine.conftest import KIT, PREFIX, docker

REPOSITORY = f"{PREFIX}postgres"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PATIENCE = 60.0
"""Seconds."""


def build(suite: str = "trixie", major: int = 17) -> str:
    """Build it, which takes a moment when it was built before; gives its reference."""
    return _build("postgres", f"{REPOSITORY}:{major}", suite, MAJOR=str(major))


def build_inspector() -> str:
    """The same for the page to look into one."""
    return _build("inspector", f"{PREFIX}inspector:1", "trixie")


def remove_images() -> None:
    """What was built here; the builder's cache keeps what makes the next time quick."""
    for repository in (REPOSITORY, f"{PREFIX}inspector"):
        for image in set(docker("image", "ls", "--quiet", repository).split()):
            docker("image", "rm", "--force", image, check=False)


def _build(image: str, reference: str, suite: str, **arguments: str) -> str:
    arguments |= {"BASE": base(suite), "SOURCE_DATE_EPOCH": "1700000000"}
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    secret = ["--secret", f"id=ca,src={BUNDLE}"] if BUNDLE.exists() else []
    docker("buildx", "build", "--quiet", *given, *secret, "--tag", reference, str(KIT / "images" / image))
    return reference


class Container:
    """A server of the image alone, as anybody would start it."""

    def __init__(self, name: str, image: str) -> None:
        self.name, self.image = name, image

    def start(self, env: Mapping[str, str], *options: str) -> None:
        """Have it made, and wait until it is healthy."""
        given = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
        docker("run", "--detach", "--name", self.name, *given, *options, self.image)
        deadline = time.monotonic() + PATIENCE
        while (state := docker("inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", self.name)) != (
            "running healthy"
        ):
            assert state.startswith("running"), f"{state}: {self.said()}"
            assert time.monotonic() < deadline, f"{state}: {self.said()}"
            time.sleep(0.1)

    def said(self) -> str:
        """Its log."""
        done = subprocess.run(
            ["docker", "logs", self.name], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.stdout

    def psql(self, statement: str, database: str = "postgres", user: str = "postgres") -> str:
        """What a statement answers, asked from inside."""
        options = ["--no-psqlrc", "--tuples-only", "--no-align", f"--dbname={database}", f"--username={user}"]
        return docker("exec", "--user", "postgres", self.name, "psql", *options, "--command", statement)

    def remove(self) -> None:
        """With its volumes; one that is not there is fine."""
        docker("rm", "--force", "--volumes", self.name, check=False)
