"""One Compose project: the only place where the engine changes containers, through python-on-whales."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import msgspec

from slipway.composefile import read_folder
from slipway.contract import Migrate, Volume
from slipway.daemon import Daemon
from slipway.errors import CommandError, PreflightError, SlipwayError
from slipway.pace import SLOWEST, Pace
from slipway.redact import redact, secrets_in, secrets_of
from slipway.release import COMPOSE_FILE, CONFIG, MIGRATE_ENV, ONCE, ONCE_VARIABLE, Manifest, migrating

if TYPE_CHECKING:
    from python_on_whales import DockerClient

T = TypeVar("T")

LAST_LINES = "20"
"""Lines of each service that are shown when a release fails."""
ASIDE = 16
"""CPU shares of a one-off that what serves comes before; a container has 1024."""
CLEAR_PATIENCE = 10.0
"""Seconds that a one-off container has to be gone."""
ERASE_LINE = "\x1b[2K"
"""Compose starts each line of logs with it, even where the output is no terminal and --ansi is never."""


class Project:
    """The Compose project of a release whose files lie in `folder`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.name = manifest.project
        self._secret_env = {name for service in manifest.services.values() for name in service.secret_env}
        self._daemon = Daemon()
        where = ["--project-name", self.name, "--project-directory", str(folder)]
        self._compose = ["docker", "compose", *where, "--file", str(folder / COMPOSE_FILE)]
        """For what python-on-whales' wrapper of Compose lacks; and its import takes an eighth of a second."""

    @cached_property
    def _client(self) -> DockerClient:
        from python_on_whales import DockerClient  # noqa: PLC0415

        return DockerClient(
            compose_files=[self.folder / COMPOSE_FILE],
            compose_project_name=self.name,
            compose_project_directory=self.folder,
        )

    def validate(self) -> None:
        """Let Compose read the files. Raises :class:`PreflightError` with what Compose says."""
        done = subprocess.run([*self._compose, "config", "--quiet"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PreflightError(
                "Compose does not accept the rendered file.",
                "Correct app_services, and run the play again.",
                details=self.redacted(done.stderr),
            )

    def create(self) -> None:
        """Create networks and containers without starting them."""
        self._do("create", self._client.compose.create)

    def start(self, only: list[str] | None = None) -> None:
        """Start every service (or `only` these), creating what is missing."""
        # Whoever waits for a start is not made to wait for the wrapper's import first: that happens beside it.
        wrapper = threading.Thread(target=import_module, args=("python_on_whales",))
        wrapper.start()
        up = [*self._compose, "up", "--detach", "--quiet-pull", *(only or [])]
        done = subprocess.run(up, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        wrapper.join()
        if done.returncode != 0:
            raise self._refused("start", done.stderr)

    def stop(self, only: list[str] | None = None) -> None:
        """Stop every service (or `only` these), each with its own grace period; the containers stay."""
        self._do("stop", lambda: self._client.compose.stop(only))

    def remove(self) -> None:
        """Remove containers and networks. Volumes stay."""
        self._do("remove", lambda: self._client.compose.down(remove_orphans=True, quiet=True))

    def run(self, service: str, command: list[str], migrate: Migrate, *, beside_another: bool = False) -> str:
        """Run a one-shot command in the service's image with its whole environment, and return its stdout.

        Two can run at a time, where one of them is told that it is `beside_another`. Raises :class:`CommandError` with
        the command's output when it fails or takes longer than `migrate.timeout` seconds.
        """
        return self._one_off(service, command, migrate, beside_another=beside_another)

    def run_to(
        self, service: str, command: list[str], migrate: Migrate, out: BinaryIO, pace: Pace | None = None
    ) -> None:
        """As :meth:`run`, with the command's stdout written byte for byte to the file `out`.

        A full disk is a :class:`CommandError` too: Compose ends when it cannot write on. With a `pace` it is an
        :class:`OSError` where Compose was done before, what serves comes first, and the command may take longer.
        """
        if pace is None:
            self._one_off(service, command, migrate, stdout=out)
            return
        with pace.outward(out) as end:
            self._one_off(service, command, migrate, stdout=end, aside=True)

    def run_from(
        self, service: str, command: list[str], migrate: Migrate, source: BinaryIO, pace: Pace | None = None
    ) -> str:
        """As :meth:`run`, with the file `source` as the command's stdin, from where it stands to its end.

        With a `pace` what serves comes first, and the command may take longer.
        """
        if pace is None:
            return self._one_off(service, command, migrate, stdin=source)
        with pace.inward(source) as end:
            return self._one_off(service, command, migrate, stdin=end, aside=True)

    def run_script(self, service: str, command: list[str], migrate: Migrate, script: str) -> str:
        """As :meth:`run`, with a text as the command's stdin."""
        with _in_memory(script.encode()) as path, open(path, "rb") as source:  # noqa: PTH123 - no file of any folder
            return self.run_from(service, command, migrate, source)

    def _one_off(
        self,
        service: str,
        command: list[str],
        migrate: Migrate,
        *,
        stdin: BinaryIO | int = subprocess.DEVNULL,
        stdout: BinaryIO | int = subprocess.PIPE,
        aside: bool = False,
        beside_another: bool = False,
    ) -> str:
        # A name of its own, so that one left by a killed call is found.
        name = f"{self.name}-{service}{'-more' if beside_another else ''}-once"
        self._clear(name)
        entrypoint = [] if migrate.entrypoint is None else ["--entrypoint", migrate.entrypoint]
        more = {"cpu_shares": ASIDE} if aside else {}
        timeout = migrate.timeout * SLOWEST if aside else migrate.timeout
        with _as_one_off(service, self._migrating(service) | more) as override:
            compose = [*self._compose, "--file", override]
            run = ["run", "--rm", "--no-deps", "-T", "--name", name, *entrypoint, service, *command]
            try:
                # Not python-on-whales' run(): it has no time limit, and it drops stdout when the command fails.
                done = subprocess.run(
                    [*compose, *run],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    check=False,
                    timeout=timeout,
                    env={**os.environ, ONCE_VARIABLE: str(ONCE + beside_another)},
                )
            except subprocess.TimeoutExpired as error:
                self._clear(name)
                raise CommandError(
                    f"`{' '.join(command)}` took longer than {timeout:g} seconds and was ended.",
                    "Find out what it waits for, or raise migrate.timeout in the contract.",
                ) from error
        said, complained = (done.stdout or b"").decode(errors="replace"), done.stderr.decode(errors="replace")
        if done.returncode != 0:
            # Compose leaves the container running when it cannot hand on what that prints.
            self._clear(name)
            failed = CommandError(
                f"`{' '.join(command)}` ended with exit code {done.returncode}.",
                "Its output is below.",
                details=self.redacted(f"{said}{_without_progress(complained)}"),
            )
            failed.code, failed.said = done.returncode, said
            raise failed
        return said

    def _migrating(self, service: str) -> dict[str, Any]:
        """What the service is overlaid with for a command of `migrate`: other files, and another environment."""
        folder = self.folder / CONFIG / migrating(service)
        env = folder / MIGRATE_ENV.lstrip("/")
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path != env)
        mounts = [
            {
                "type": "bind",
                "source": str(path).replace("$", "$$"),
                "target": f"/{path.relative_to(folder)}".replace("$", "$$"),
                "read_only": True,
                "bind": {"create_host_path": False},
            }
            for path in files
        ]
        given = msgspec.json.decode(env.read_bytes())["secret_env"] if env.exists() else {}
        variables = {name: value.replace("$", "$$") for name, value in given.items()}
        return {key: value for key, value in {"volumes": mounts, "environment": variables}.items() if value}

    def logs(self, since: datetime) -> str:
        """The last lines of all services from `since` on, without secrets."""
        from python_on_whales.exceptions import DockerException  # noqa: PLC0415

        try:
            # As a stream, because that comes as bytes: what an application prints when it dies need not be UTF-8.
            stream = self._client.compose.logs(tail=LAST_LINES, since=since.isoformat(), stream=True)
            text = "".join(chunk.decode(errors="replace") for _, chunk in cast("Iterator[tuple[str, bytes]]", stream))
        except DockerException as error:
            text = error.stderr or ""
        return self.redacted(str(text).replace(ERASE_LINE, ""))

    def follow(self, *, services: list[str], since: str | None, follow: bool) -> Iterator[str]:
        """Yield log text as it comes, without secrets, line by line."""
        from python_on_whales.exceptions import DockerException  # noqa: PLC0415

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

    def ensure_volume(self, name: str, volume: Volume, labels: dict[str, str]) -> None:
        """Create a named volume with the owner that the contract states; one that holds data is left as it is."""
        # An empty one may be of a call that was killed before it had its owner.
        mountpoint = self._daemon.make_volume(name, labels)
        if not any(mountpoint.iterdir()):
            mountpoint.chmod(0o750)
            os.chown(mountpoint, volume.uid, volume.gid)

    def has_empty(self, volumes: Collection[str]) -> bool:
        """Whether these named volumes are there and hold nothing."""
        mountpoints = [self._daemon.volume(name) for name in volumes]
        return all(mountpoint is not None and not any(mountpoint.iterdir()) for mountpoint in mountpoints)

    def _clear(self, container: str) -> None:
        deadline = time.monotonic() + CLEAR_PATIENCE
        while self._daemon.has_container(container):
            # It may be on its way out already, and then it cannot be removed.
            self._daemon.remove_container(container)
            if time.monotonic() > deadline:
                raise SlipwayError(
                    f"Docker could not remove the container {container}.", f"Remove it: docker rm --force {container}."
                )
            time.sleep(0.05)

    def _do(self, verb: str, act: Callable[[], T]) -> T:
        from python_on_whales.exceptions import DockerException  # noqa: PLC0415

        try:
            return act()
        except DockerException as error:
            raise self._refused(verb, error.stderr or "") from error

    def _refused(self, verb: str, said: str) -> SlipwayError:
        return SlipwayError(
            f"Docker could not {verb} the project {self.name}.",
            "Its words are below.",
            details=self.redacted(_without_progress(said)),
        )

    def redacted(self, text: str | None) -> str:
        """The text without what is secret in the release's config files and in its services' environment."""
        return redact(text or "", self._secrets()).strip()

    def _secrets(self) -> set[str]:
        try:
            config = read_folder(self.folder)
        except PreflightError:
            config = {}
        found = secrets_of(self.folder)
        for service in config.get("services", {}).values():
            environment = {name: value or "" for name, value in (service.get("environment") or {}).items()}
            found.update(secrets_in(environment))
            found.update(value for name, value in environment.items() if name in self._secret_env and value)
        return found


def _as_one_off(service: str, migrating_: Mapping[str, Any]) -> AbstractContextManager[str]:
    """A Compose file, to lay over the release's own, for a command that ends by itself, with what it has of its own.

    No log is kept of what `service` prints, and whether it is healthy is not asked.

    Docker's log would keep a second copy of it, a whole database at times, and writing that is slow: a backup of
    300 MB takes 9.3 s with a log and 1.1 s without.
    """
    once = {"logging": {"driver": "none"}, "healthcheck": {"disable": True}, **migrating_}
    # JSON is YAML.
    return _in_memory(msgspec.json.encode({"services": {service: once}}))


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A file in memory, by its path: a killed call leaves none behind, and a full disk keeps nobody from going back."""
    handle = os.memfd_create("slipway")
    try:
        os.write(handle, content)
        # Not /proc/self: another process opens it.
        yield f"/proc/{os.getpid()}/fd/{handle}"
    finally:
        os.close(handle)


def _without_progress(text: str) -> str:
    """Drop Compose's own progress lines (` Container x  Started`), which say nothing about a failure."""
    return "\n".join(
        line for line in text.splitlines() if not line.startswith((" Container ", " Network ", " Volume "))
    )
