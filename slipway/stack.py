"""A stack of the kit's own (the registry): a folder of plain Compose on this host that is kept as declared.

    /srv/slipway/<name>/        0700 root; `docker compose` works in it
        compose.yml             and whatever it mounts

A stack has no releases: its files are replaced in place, after Compose has read them, and its containers are
replaced only where something differs; a main file that is declared as reloaded replaces none. What differs is
found by looking, not by remembering, so a call that was cut off half-way is finished by the next one.

Where nobody waits for its containers, a process of its own starts them, and whoever builds on them waits for it
with :func:`started`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

import msgspec

from slipway.background import in_background
from slipway.daemon import LABEL_PROJECT, LABEL_SERVICE, Daemon
from slipway.errors import Exit, PreflightError, SlipwayError, UnhealthyError, UsageError
from slipway.project import ERASE_LINE
from slipway.registries import Login
from slipway.release import COMPOSE_FILE, NAME
from slipway.store import BEGUN_FILE, ROOT, hold

if TYPE_CHECKING:
    from python_on_whales import DockerClient

# Seconds between two looks at a starting container: a start is as quick as it is noticed.
POLL = 0.1
# Restarts after which a container is called broken instead of slow.
RESTARTS = 2
LAST_LINES = 20


class StackFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One file of the stack's folder; its content is shown in diffs and logged by Ansible, so it holds no secret."""

    path: str
    content: str
    mode: str = "0644"
    uid: int = 0
    gid: int = 0


class Reload(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A Caddy of the stack takes a changed main file over by its admin socket, without its container being replaced.

    Both are paths in the stack's folder.
    """

    file: str
    socket: str


class StackRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `slipway stack --json` reads. `purge` lets `absent` remove the volumes too: that is where data ends."""

    name: str
    files: list[StackFile] = []
    reload: list[Reload] = []
    state: Literal["present", "stopped", "absent"] = "present"
    purge: bool = False
    begin: bool = False
    """Whether `present` does not wait for containers that it has to start: :func:`started` does."""
    wait: float = 60.0
    """Seconds for all containers to be running and healthy."""
    logins: dict[str, Login] = msgspec.field(default_factory=dict)
    """For the registries of its images."""
    check: bool = False


class Running(msgspec.Struct, kw_only=True):
    """One container of the stack as it is now, and what the engine would start in its place."""

    id: str
    name: str
    service: str
    state: str
    health: str
    restarts: int
    config: str
    """Compose's hash of the service that it was made from."""
    image: str
    image_now: str
    """The image that its reference names today: another one after a rebuild under the same tag."""
    created: float
    """Seconds since 1970."""


def drift(running: list[Running], wanted: dict[str, str], files_written: float) -> list[str]:
    """Why the containers are not what the files say; an empty list when they are.

    `wanted` maps each service to Compose's hash of it; `files_written` is when the newest mounted file was
    written, in seconds since 1970: a container made before that still sees the old one.
    """
    reasons = []
    by_service: dict[str, list[Running]] = {}
    for container in running:
        by_service.setdefault(container.service, []).append(container)
    for service, config in wanted.items():
        if service not in by_service:
            reasons.append(f"{service} is not there")
        for container in by_service.get(service, []):
            if container.config != config:
                reasons.append(f"{service} runs with other settings")
            elif container.image != container.image_now:
                reasons.append(f"{service} runs an older image")
            elif container.created < files_written:
                reasons.append(f"{service} has not seen its newest config")
            elif container.state != "running":
                reasons.append(f"{service} is {container.state}")
            elif container.health == "unhealthy":
                reasons.append(f"{service} is unhealthy")
    reasons.extend(f"{service} is no longer declared" for service in by_service.keys() - wanted.keys())
    return reasons


def run(request: StackRequest, root: Path = ROOT) -> dict[str, Any]:
    """Bring the stack to its state. The answer: `changed`, `msg`, `reasons`, `diff` (per changed file: path,
    before, after), `containers` (name, service, state, health, image).
    """
    if not NAME.fullmatch(request.name):
        raise UsageError(f"{request.name!r} is not a name of a stack.", "Use lower-case letters, digits and dashes.")
    stack = Stack(request, root)
    verbs = {"present": stack.present, "stopped": stack.stopped, "absent": stack.absent}
    return verbs[request.state]()


class Failed(msgspec.Struct, kw_only=True):
    """The error of a start that nobody waited for, as the stack's folder notes it."""

    what: str
    do_next: str
    details: str
    exit: Exit


def started(folder: Path) -> None:
    """Wait for the containers of the stack in `folder`, where they were only begun.

    Raises what kept them from starting, until a later call of `present` has brought them up.
    """
    note = folder / BEGUN_FILE
    if not note.exists():
        return
    with hold(folder):
        said = note.read_bytes() if note.exists() else None
    if said is None:
        return
    if not said:
        raise SlipwayError(f"The start of the stack {folder.name} was cut off.", "Run playbooks/site.yml again.")
    failed = msgspec.json.decode(said, type=Failed)
    error = SlipwayError(failed.what, f"{failed.do_next} Then run playbooks/site.yml again.", details=failed.details)
    error.exit = failed.exit
    raise error


class Stack:
    """The stack of a request on this host."""

    def __init__(self, request: StackRequest, root: Path) -> None:
        self.request = request
        self.name = request.name
        self.project = f"slipway-{request.name}"
        self.folder = root / request.name

    def present(self, *, held: bool = False) -> dict[str, Any]:
        """Write what differs, start or replace what differs, and wait until all of it is healthy.

        `held` says that the caller holds the folder.
        """
        check = self.request.check
        changes = [file for file in self.request.files if differs(file, self.folder)]
        diff = [shown(file, self.folder) for file in changes]
        declared = self._validated() if changes else {}
        if changes and check:
            what = ", ".join(file.path for file in changes)
            return self._answer(True, f"To write: {what}. Then to start or replace its containers.", diff=diff)
        # Looking needs no lock.
        with nullcontext() if check or held else hold(self.folder):
            before = [_as_it_is(file, self.folder) for file in changes]
            for file in changes:
                write(file, self.folder)
            reloads = self._reload(changes, before)
            reasons = self._drift(declared)
            if (reasons or reloads) and check:
                return self._answer(True, f"To converge: {'; '.join([*reloads, *reasons])}.", reasons=reasons)
            if reasons and self.request.begin:
                self._begin(reasons, declared)
                return self._answer(True, f"Begun ({'; '.join(reasons)}).", reasons=reasons, diff=diff)
            began = time.monotonic()
            if not check:
                self._bring_up(reasons, declared)
        took = time.monotonic() - began
        done = f"Healthy after {took:.1f} s ({'; '.join(reasons)})." if reasons else "As declared."
        return self._answer(
            bool(changes or reloads or reasons), " ".join([*map(_sentence, reloads), done]), reasons=reasons, diff=diff
        )

    def _begin(self, reasons: list[str], declared: Mapping[str, str]) -> None:
        """Start it in a process of its own, which holds the folder for as long as that takes."""
        note = self.folder / BEGUN_FILE
        note.write_bytes(b"")

        def start() -> None:
            try:
                self._bring_up(reasons, declared)
            except SlipwayError as error:
                failed = Failed(what=error.what, do_next=error.do_next, details=error.details, exit=error.exit)
                note.write_bytes(msgspec.json.encode(failed))

        in_background(start)

    def _bring_up(self, reasons: list[str], declared: Mapping[str, str]) -> None:
        if reasons:
            for image in set((declared or self._images(self.folder)).values()):
                self.pull(image)
            self._up(reasons)
        self._wait()
        (self.folder / BEGUN_FILE).unlink(missing_ok=True)

    def stopped(self) -> dict[str, Any]:
        """Stop the processes; files, containers and volumes stay."""
        up = [c.name for c in look(self.project) if c.state in {"running", "restarting", "paused"}]
        if up and not self.request.check:
            with hold(self.folder):
                self.halt()
        done = "To stop" if self.request.check else "Stopped"
        return self._answer(bool(up), f"{done}: {', '.join(up)}." if up else "Stopped already.")

    def absent(self) -> dict[str, Any]:
        """Remove containers, networks and files; the volumes only when that is asked for."""
        purge = self.request.purge
        there = (self.folder / COMPOSE_FILE).is_file() or bool(look(self.project))
        if there and not self.request.check:
            with hold(self.folder):
                self._compose(
                    "remove",
                    lambda client: client.compose.down(remove_orphans=True, volumes=purge, quiet=True),
                )
                shutil.rmtree(self.folder)
        done = "To remove" if self.request.check else "Removed"
        kept = "with its volumes" if purge else "its volumes stay"
        return self._answer(there, f"{done}, {kept}." if there else "Absent already.")

    def _reload(self, changes: list[StackFile], before: list[StackFile | None]) -> list[str]:
        """Let the Caddys that run take their main files over, and name those that did.

        When one refuses, put back what was `before`, and let the others take that over again.
        """
        # Imported here because only one stack needs it.
        from slipway.edge import Caddy, RefusedError, UnreachableError  # noqa: PLC0415

        def reload() -> Iterator[str]:
            for main in self.request.reload:
                caddy = Caddy(self.folder / main.file, self.folder / main.socket)
                # One that does not run reads the file when it is started.
                with suppress(UnreachableError, FileNotFoundError):
                    if not caddy.agrees() if self.request.check else caddy.reload():
                        yield f"{main.file} is loaded anew"

        try:
            return list(reload())
        except RefusedError:
            for file, old in zip(changes, before, strict=True):
                _restore(file.path, old, self.folder)
            with suppress(SlipwayError):
                list(reload())
            raise

    def _drift(self, declared: Mapping[str, str]) -> list[str]:
        """Why its containers are not what its files say; `declared` is service -> image, where that is known."""
        running = look(self.project)
        if declared and not running:
            # A new stack is not asked for what tells one container from another.
            return drift([], dict.fromkeys(declared, ""), 0)
        said = self._docker_compose(self.folder, "config", "--hash", "*")
        if said.returncode != 0:
            raise SlipwayError(
                f"Compose does not accept what lies in {self.folder}.",
                "Correct it, or run the play again.",
                details=said.stderr.strip(),
            )
        wanted = dict(line.split() for line in said.stdout.splitlines())
        read_live = {COMPOSE_FILE, *(main.file for main in self.request.reload)}
        mounted = [self.folder / file.path for file in self.request.files if file.path not in read_live]
        newest = max((path.stat().st_mtime for path in mounted), default=0.0)
        return drift(running, wanted, newest)

    def pull(self, image: str) -> None:
        """Bring an image that is pinned by digest and not here: Compose would pull it without a login."""
        daemon = Daemon()
        if "@" in image and daemon.image(image) is None:
            daemon.pull(image, self.request.logins)

    def halt(self) -> None:
        """Stop the processes, for a caller that holds the folder."""
        self._compose("stop", lambda client: client.compose.stop())

    def restart(self) -> None:
        """Stop and start the processes of the same containers, and wait until all of it is healthy."""
        self._compose("restart", lambda client: client.compose.restart())
        self._wait()

    def _up(self, reasons: list[str]) -> None:
        # Compose replaces a container for other settings or another image, not for a mounted file or bad health.
        force = any("newest config" in reason or "unhealthy" in reason for reason in reasons)
        anew = ["--force-recreate"] if force else []
        # Whoever waits for a start is not made to wait for the wrapper's import.
        done = self._docker_compose(self.folder, "up", "--detach", "--quiet-pull", "--remove-orphans", *anew)
        if done.returncode != 0:
            raise self._refused("start", done.stderr)

    def _wait(self) -> None:
        """Return when every container is running and healthy; a broken one is told at once."""
        deadline = time.monotonic() + self.request.wait
        while True:
            containers = look(self.project)
            waiting = [c for c in containers if c.state != "running" or c.health not in {"", "healthy"}]
            if containers and not waiting:
                return
            broken = [c for c in waiting if _is_broken(c)]
            if broken or time.monotonic() >= deadline:
                logs = self._docker_compose(self.folder, "logs", "--no-color", f"--tail={LAST_LINES}")
                states = ", ".join(f"{c.service} is {c.health or c.state}" for c in broken or waiting)
                raise UnhealthyError(
                    f"The stack {self.name} did not become healthy: {states or 'nothing runs'}.",
                    f"Read its last lines below and its settings in {self.folder}.",
                    details=logs.stdout.replace(ERASE_LINE, "").strip(),
                )
            time.sleep(POLL)

    def _validated(self) -> dict[str, str]:
        """Let Compose read the files before they replace anything; service -> image."""
        with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
            for file in self.request.files:
                write(file, Path(scratch))
            return self._images(Path(scratch))

    def _images(self, folder: Path) -> dict[str, str]:
        """Service -> image, as Compose reads the files in `folder`."""
        done = self._docker_compose(folder, "config", "--format", "json")
        if done.returncode != 0:
            raise PreflightError(
                f"Compose does not accept the files of the stack {self.name}.",
                "Correct them; nothing on the host was changed.",
                details=done.stderr.strip(),
            )
        return {name: service["image"] for name, service in msgspec.json.decode(done.stdout)["services"].items()}

    def _docker_compose(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """For what python-on-whales' wrapper of Compose lacks: hashes, a silent validation, plain logs."""
        place = ["--project-name", self.project, "--project-directory", str(folder)]
        return subprocess.run(
            ["docker", "compose", *place, "--file", str(folder / COMPOSE_FILE), *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def _compose(self, verb: str, act: Callable[[DockerClient], object]) -> None:
        # Imported where it is needed: a run that changes nothing is quicker by a tenth of a second without it.
        from python_on_whales import DockerClient  # noqa: PLC0415
        from python_on_whales.exceptions import DockerException  # noqa: PLC0415

        # Without its files a project is still known by the labels of its containers.
        file = self.folder / COMPOSE_FILE
        client = DockerClient(
            compose_files=[file] if file.is_file() else [],
            compose_project_name=self.project,
            compose_project_directory=self.folder,
        )
        try:
            act(client)
        except DockerException as error:
            raise self._refused(verb, error.stderr or "") from error

    def _refused(self, verb: str, said: str) -> SlipwayError:
        if "already allocated" in said or "address already in use" in said:
            return PreflightError(
                f"The stack {self.name} cannot start: a port that it publishes is taken.",
                "Free the port (`ss -tlnp` shows who holds it) or declare another one.",
                details=said.strip(),
            )
        return SlipwayError(
            f"Docker could not {verb} the stack {self.name}.", "Its words are below.", details=said.strip()
        )

    def _answer(
        self,
        changed: bool,
        msg: str,
        *,
        reasons: list[str] | None = None,
        diff: list[dict[str, str]] | None = None,
    ) -> dict[str, Any]:
        fields = ("name", "service", "state", "health", "image")
        there = [] if self.request.check and changed else look(self.project)
        return {
            "changed": changed,
            "msg": f"Stack {self.name}: {msg}",
            "reasons": reasons or [],
            "diff": diff or [],
            "containers": [{field: getattr(container, field) for field in fields} for container in there],
        }


def _is_broken(container: Running) -> bool:
    """Whether waiting longer is of no use."""
    return container.state in {"exited", "dead"} or container.health == "unhealthy" or container.restarts > RESTARTS


def look(project: str) -> list[Running]:
    """The containers of a Compose project as they are now, running or not, without one-shot runs."""
    return _StackDaemon().stack(project)


class _StackDaemon(Daemon):
    """The questions that only a stack asks."""

    def stack(self, project: str) -> list[Running]:
        labels = [f"{LABEL_PROJECT}={project}", "com.docker.compose.oneoff=False"]
        query = urlencode({"all": "true", "filters": msgspec.json.encode({"label": labels}).decode()})
        status, listed = self._request(f"/containers/json?{query}")
        bodies = [self._find(f"/containers/{entry['Id']}/json") for entry in (listed if status == 200 else [])]  # noqa: PLR2004
        return [self._running(body) for body in bodies if body is not None]

    def _running(self, body: dict[str, Any]) -> Running:
        state, labels = body["State"], body["Config"]["Labels"] or {}
        now = self.image(body["Config"]["Image"]) or {}
        return Running(
            id=body["Id"],
            name=body["Name"].lstrip("/"),
            service=labels.get(LABEL_SERVICE, ""),
            state=state["Status"],
            health=(state.get("Health") or {}).get("Status", ""),
            restarts=body["RestartCount"],
            config=labels.get("com.docker.compose.config-hash", ""),
            image=body["Image"],
            image_now=now.get("Id", ""),
            created=datetime.fromisoformat(body["Created"][:26].rstrip("Z") + "+00:00").timestamp(),
        )


def differs(file: StackFile, folder: Path) -> bool:
    """Whether the file is not there as it is declared."""
    path = folder / _inside(file.path)
    try:
        stat = path.stat()
        same = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (int(file.mode, 8), file.uid, file.gid)
        return not same or path.read_text() != file.content
    except FileNotFoundError:
        return True


def _as_it_is(file: StackFile, folder: Path) -> StackFile | None:
    path = folder / _inside(file.path)
    try:
        stat = path.stat()
        mode = f"{stat.st_mode & 0o7777:04o}"
        return StackFile(path=file.path, content=path.read_text(), mode=mode, uid=stat.st_uid, gid=stat.st_gid)
    except FileNotFoundError:
        return None


def _restore(path: str, file: StackFile | None, folder: Path) -> None:
    if file is None:
        (folder / path).unlink()
    else:
        write(file, folder)


def write(file: StackFile, folder: Path) -> None:
    """Replace the file in one step: whole, with its owner and mode, on disk."""
    path = folder / _inside(file.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as out:
            out.write(file.content)
            out.flush()
            os.fchown(out.fileno(), file.uid, file.gid)
            os.fchmod(out.fileno(), int(file.mode, 8))
            os.fsync(out.fileno())
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _inside(path: str) -> PurePosixPath:
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise UsageError(f"The file {path} lies outside of the stack's folder.", "Give a path relative to it.")
    return relative


def shown(file: StackFile, folder: Path) -> dict[str, str]:
    """What a file is and what it will be, for people."""
    path = folder / _inside(file.path)
    before = path.read_text() if path.is_file() else ""
    return {"path": str(path), "before": before, "after": file.content}


def _sentence(text: str) -> str:
    return f"{text}."
