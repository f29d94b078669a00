"""One Compose project: the only place where the engine changes containers, through python-on-whales."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar, cast

from python_on_whales import DockerClient
from python_on_whales.exceptions import DockerException

from slipway.contract import Migrate, Volume
from slipway.errors import CommandError, PreflightError, SlipwayError
from slipway.redact import redact, secrets_in, secrets_of
from slipway.release import COMPOSE_FILE, LABEL_NAME, Manifest

T = TypeVar("T")

LAST_LINES = "20"
"""Lines of each service that are shown when a release fails."""
ERASE_LINE = "\x1b[2K"
"""Compose starts each line of logs with it, even where the output is no terminal and --ansi is never."""


class Project:
    """The Compose project of a release whose files lie in `folder`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.name = manifest.project
        self._secret_env = {name for service in manifest.services.values() for name in service.secret_env}
        self._client = DockerClient(
            compose_files=[folder / COMPOSE_FILE],
            compose_project_name=self.name,
            compose_project_directory=folder,
        )

    def validate(self) -> None:
        """Let Compose read the files. Raises :class:`PreflightError` with what Compose says."""
        try:
            self._client.compose.config(return_json=True)
        except DockerException as error:
            raise PreflightError(
                "Compose does not accept the rendered file.",
                "Correct app_services, and run the play again.",
                details=self.redacted(error.stderr),
            ) from error

    def create(self) -> None:
        """Create networks and containers without starting them."""
        self._do("create", self._client.compose.create)

    def start(self, only: list[str] | None = None) -> None:
        """Start every service (or `only` these), creating what is missing."""
        self._do("start", lambda: self._client.compose.up(only, detach=True, quiet=True))

    def stop(self, only: list[str] | None = None) -> None:
        """Stop every service (or `only` these), each with its own grace period; the containers stay."""
        self._do("stop", lambda: self._client.compose.stop(only))

    def remove(self) -> None:
        """Remove containers and networks. Volumes stay."""
        self._do("remove", lambda: self._client.compose.down(remove_orphans=True, quiet=True))

    def run(self, service: str, command: list[str], migrate: Migrate) -> str:
        """Run a one-shot command in the service's image with its whole environment, and return its stdout.

        Raises :class:`CommandError` with the command's output when it fails or takes longer than
        `migrate.timeout` seconds. The container has a name of its own, so that one left by a killed call is found.
        """
        name = f"{self.name}-{service}-once"
        self._clear(name)
        arguments = [*self._client.compose.docker_compose_cmd, "run", "--rm", "--no-deps", "-T", "--name", name]
        if migrate.entrypoint is not None:
            arguments += ["--entrypoint", migrate.entrypoint]
        try:
            # Not python-on-whales' run(): it has no time limit, and it drops stdout when the command fails.
            done = subprocess.run(
                [str(part) for part in [*arguments, service, *command]],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=migrate.timeout,
            )
        except subprocess.TimeoutExpired as error:
            self._clear(name)
            raise CommandError(
                f"`{' '.join(command)}` took longer than {migrate.timeout:g} seconds and was ended.",
                "Find out what it waits for, or raise migrate.timeout in the contract.",
            ) from error
        if done.returncode != 0:
            raise CommandError(
                f"`{' '.join(command)}` ended with exit code {done.returncode}.",
                "Its output is below.",
                details=self.redacted(f"{done.stdout}{_without_progress(done.stderr)}"),
            )
        return done.stdout

    def logs(self, since: datetime) -> str:
        """The last lines of all services from `since` on, without secrets."""
        try:
            # As a stream, because that comes as bytes: what an application prints when it dies need not be UTF-8.
            stream = self._client.compose.logs(tail=LAST_LINES, since=since.isoformat(), stream=True)
            text = "".join(chunk.decode(errors="replace") for _, chunk in cast("Iterator[tuple[str, bytes]]", stream))
        except DockerException as error:
            text = error.stderr or ""
        return self.redacted(str(text).replace(ERASE_LINE, ""))

    def follow(self, *, services: list[str], since: str | None, follow: bool) -> Iterator[str]:
        """Yield log text as it comes, without secrets, line by line."""
        secrets = self._secrets()
        stream = cast(
            "Iterator[tuple[str, bytes]]",
            self._client.compose.logs(services=services, since=since, follow=follow, stream=True),
        )
        try:
            for _, chunk in stream:
                yield redact(chunk.decode(errors="replace").replace(ERASE_LINE, ""), secrets)
        except DockerException as error:
            raise SlipwayError(
                f"The logs of {self.name} could not be read.",
                "Docker's words are below.",
                details=self.redacted(error.stderr),
            ) from error

    def pull(self, reference: str) -> None:
        """Pull an image by digest. Raises :class:`PreflightError` with what the registry said."""
        try:
            self._client.image.pull(reference, quiet=True)
        except DockerException as error:
            raise PreflightError(
                f"The image {reference} could not be pulled.",
                "Check that its registry answers and still holds it, and run the play again.",
                details=str(error.stderr or ""),
            ) from error

    def ensure_volume(self, name: str, volume: Volume, labels: dict[str, str]) -> None:
        """Create a named volume with the owner that the contract states; one that holds data is left as it is."""
        # Creating one that exists gives that one; an empty one may be of a call that was killed before the next line.
        made = self._do("make a volume for", lambda: self._client.volume.create(name, labels=labels))
        mountpoint = Path(made.mountpoint)
        if not any(mountpoint.iterdir()):
            mountpoint.chmod(0o750)
            os.chown(mountpoint, volume.uid, volume.gid)

    def remove_volumes(self, name: str) -> None:
        """Remove all volumes of the environment `name`. This is where data ends."""
        for volume in self._client.volume.list(filters={"label": f"{LABEL_NAME}={name}"}):
            self._do("remove a volume of", volume.remove)

    def _clear(self, container: str) -> None:
        if self._client.container.exists(container):
            self._client.container.remove(container, force=True)

    def _do(self, verb: str, act: Callable[[], T]) -> T:
        try:
            return act()
        except DockerException as error:
            raise SlipwayError(
                f"Docker could not {verb} the project {self.name}.",
                "Its words are below.",
                details=self.redacted(_without_progress(error.stderr or "")),
            ) from error

    def redacted(self, text: str | None) -> str:
        """The text without what is secret in the release's config files and in its services' environment."""
        return redact(text or "", self._secrets()).strip()

    def _secrets(self) -> set[str]:
        try:
            config = self._client.compose.config(return_json=True)
        except DockerException:
            config = {}
        found = secrets_of(self.folder)
        for service in config.get("services", {}).values():
            # Compose prints each `$` doubled, as its own files want it.
            given = service.get("environment") or {}
            environment = {name: (value or "").replace("$$", "$") for name, value in given.items()}
            found.update(secrets_in(environment))
            found.update(value for name, value in environment.items() if name in self._secret_env and value)
        return found


def stop_containers(ids: list[str]) -> None:
    """Stop containers of which no Compose file is left."""
    try:
        DockerClient().container.stop(ids)
    except DockerException as error:
        raise SlipwayError(
            "Containers of a release that is no longer on this host could not be stopped.",
            "Docker's words are below.",
            details=error.stderr or "",
        ) from error


def _without_progress(text: str) -> str:
    """Drop Compose's own progress lines (` Container x  Started`), which say nothing about a failure."""
    return "\n".join(
        line for line in text.splitlines() if not line.startswith((" Container ", " Network ", " Volume "))
    )
