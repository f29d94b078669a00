"""Environments of their own on the real Docker of this machine, reached as Ansible's modules reach them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway.edge import Edge
from slipway.ledger import Entry, Ledger
from slipway.protocol import PROTOCOL
from slipway.render import finish, render

KIT = Path(__file__).parents[2]
EDGE = Path("/srv/slipway/edge")
"""The edge of this machine. Environments under another root share it."""
REGISTRY = "127.0.0.1:5000"
BACKEND = f"{REGISTRY}/slipway/backend"
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
"""Keeps apart what two test runs on one machine make."""
PREFIX = f"slipway-test{WORKER}-"
REPOSITORY = f"{REGISTRY}/{PREFIX}images/app"
SECRET = "never-to-be-seen-0123456789-abcdefghij"
KEY = "k" * 32
OF_RUN = {"run": "by-steps", "by": "alice"}
IMAGES = {"1.0": "0001", "1.1": "0001", "2.0": "0001 0002"}
"""Version of the application -> the revisions of its schema, oldest first."""


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def get(port: int, path: str = "/") -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
        found: dict[str, Any] = json.load(response)
        return found


class RefusedError(Exception):
    """The engine refused, or failed."""

    def __init__(self, verb: str, code: int, answer: dict[str, Any]) -> None:
        super().__init__(f"{verb}: {answer['what']} {answer['do_next']}\n{answer['details']}")
        self.verb = verb
        self.code = code
        self.what: str = answer["what"]
        self.do_next: str = answer["do_next"]
        self.details: str = answer["details"]


class Environment:
    """One environment on this machine."""

    Refused = RefusedError

    def __init__(self, name: str, root: Path, port: int) -> None:
        self.name = name
        self.root = root
        self.port = port
        self.folder = root / name
        self.said: list[str] = []
        """All that the engine has said, for leak tests."""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "slipway.cli", "--root", str(self.root), *arguments]

    def slipway(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command(*arguments), input=stdin, capture_output=True, text=True, check=False)
        self.said.append(done.stdout + done.stderr)
        return done

    def ask(self, verb: str, **request: Any) -> dict[str, Any]:
        done = self.slipway(verb, "--json", stdin=_asked(**request))
        assert done.stdout, f"{verb} broke off: {done.stderr}"
        answer: dict[str, Any] = json.loads(done.stdout)
        if not answer["ok"]:
            assert done.returncode == answer["exit"]
            raise RefusedError(verb, done.returncode, answer)
        assert done.returncode == 0
        return answer

    def of_run(self, verb: str, **request: Any) -> dict[str, Any]:
        """One step of a run that is done step by step."""
        return self.ask(verb, **OF_RUN, **request)

    def services(
        self, version: str, *, config: dict[str, Any] | None = None, env: dict[str, str] | None = None, **change: Any
    ) -> dict[str, Any]:
        content = {"auth": {"jwtSecret": SECRET}, **(config or {})}
        app: dict[str, Any] = {
            "image": REPOSITORY,
            "tag": version,
            "user": "1001:1001",
            "port": 8000,
            "publish": self.port,
            "env": env or {},
            "stop_grace_period": 2,
            # A thread for each connection, and a load test holds many.
            "resources": {"memory": "64m", "pids": 200},
            "config_files": [{"path": "/app/config/app.json", "content": content, "gid": 1001}],
            "health": {
                "path": "/",
                "json": {"status": "ready"},
                "version": "version",
                "start_interval": 0.1,
                "start_period": 20,
            },
            "migrate": {
                **{verb: ["migrate", verb] for verb in ("up", "plan", "status", "sql")},
                "dialect": "sqlite",
                "down": ["migrate", "down", "{revision}"],
                "backup": {verb: ["backup", verb] for verb in ("create", "verify", "count", "restore")},
            },
            "volumes": {"data": {"path": "/app/data", "uid": 1001, "gid": 1001}},
        }
        return {"app": {**app, **change}}

    def preflight(
        self, services: dict[str, Any], min_free_mb: int = 1, logins: dict[str, dict[str, str]] | None = None
    ) -> dict[str, Any]:
        return self.ask(
            "preflight",
            name=self.name,
            images={
                name: {"repository": spec["image"], "tag": spec["tag"], "digest": spec.get("digest", "")}
                for name, spec in services.items()
            },
            ports={name: spec["publish"] for name, spec in services.items() if "publish" in spec},
            min_free_mb=min_free_mb,
            logins=logins or {},
        )

    def release(self, services: dict[str, Any], digests: dict[str, str]) -> dict[str, Any]:
        rendered = render(services, name=self.name, environment="test", digests=digests, key=KEY)
        finished = finish(rendered, yaml.safe_dump(rendered["compose"], sort_keys=False), KEY)
        files = [{**file, "content": finished["contents"][file["path"]]} for file in finished["release"]["files"]]
        return {**finished["release"], "files": files}

    def prepare(self, version: str, **change: Any) -> dict[str, Any]:
        """A release that could be staged."""
        services = self.services(version, **change)
        return self.release(services, self.preflight(services)["digests"])

    def deploy(self, version: str, *, soak: float = 0, keep: int = 5, unsafe: bool = False, **change: Any) -> Deployed:
        return self.deploy_services(self.services(version, **change), soak=soak, keep=keep, unsafe=unsafe)

    def deploy_services(
        self,
        services: dict[str, Any],
        *,
        soak: float = 0,
        keep: int = 5,
        unsafe: bool = False,
        logins: dict[str, dict[str, str]] | None = None,
    ) -> Deployed:
        """As the role `release` does it."""
        release = self.release(services, self.preflight(services, logins=logins)["digests"])
        release_id = release["manifest"]["id"]
        run: dict[str, Any] = {"run": f"run-{time.monotonic_ns()}", "by": "alice"}
        staged = self.ask("stage", release=release, allow_unsafe=unsafe, logins=logins or {}, **run)
        if staged["serves"]:
            return Deployed(release_id, {"stage": staged})
        answers = {"stage": staged}
        run.update(name=self.name, release=release_id, fence=staged["fence"])
        if staged["pending"]:
            answers["migrate"] = self.ask("migrate", allow_unsafe=unsafe, pending=staged["pending"], **run)
        deferred = answers.get("migrate", {}).get("deferred", False)
        answers["activate"] = self.ask("activate", migrate=deferred, terms={"seconds": soak}, **run)
        answers["verify"] = self.ask("verify", keep=keep, **run)
        return Deployed(release_id, answers)

    def version(self) -> str:
        found: str = get(self.port)["version"]
        return found

    def current(self) -> str:
        return (self.folder / "current").readlink().name

    def ledger(self) -> list[Entry]:
        return Ledger(self.folder).entries()

    def containers(self, *, running: bool = False) -> list[dict[str, Any]]:
        ids = docker(
            "ps", *([] if running else ["--all"]), "--quiet", "--filter", f"label=org.slipway.name={self.name}"
        ).split()
        # One that goes between the list and the look at it is left out.
        found: list[dict[str, Any]] = json.loads(docker("inspect", *ids, check=False)) if ids else []
        return found

    def standing(self) -> list[tuple[str, str, bool]]:
        """What runs, so that a test can say that nothing was touched."""
        return [
            (container["Id"], container["State"]["StartedAt"], container["State"]["Running"])
            for container in self.containers()
        ]

    def volume(self) -> Path:
        return Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", f"{self.name}-data"))

    def kill_when(self, moment: Callable[[], object], verb: str, **request: Any) -> None:
        """Start a call and kill it with no warning as soon as `moment` is true."""
        with subprocess.Popen(
            self.command(verb, "--json"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as call:
            assert call.stdin is not None
            call.stdin.write(_asked(**OF_RUN, **request))
            call.stdin.close()
            deadline = time.monotonic() + 20
            while not moment():
                assert call.poll() is None, f"{verb} ended before the moment to kill it"
                assert time.monotonic() < deadline, f"the moment to kill {verb} never came"
            call.kill()

    def kill_before(self, function: str, verb: str, **request: Any) -> None:
        """Do a call whose process is killed with no warning where it would begin `function`, as `module:Class.name`.

        For a moment that passes too quickly to be seen from outside.
        """
        module, _, path = function.partition(":")
        owner, _, name = path.rpartition(".")
        dies = (
            f"import os, signal, sys; from slipway.cli import main; from {module} import {owner}; "
            f"assert callable({owner}.{name}); "
            f"{owner}.{name} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL); "
            "sys.exit(main())"
        )
        command = [sys.executable, "-c", dies, "--root", str(self.root), verb, "--json"]
        done = subprocess.run(command, input=_asked(**OF_RUN, **request), capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, f"{verb} ended before {function}: {done.stdout}{done.stderr}"

    def clear(self) -> None:
        """Remove whatever is left, also where the engine could not."""
        Edge(self.root).remove(self.name)
        label = f"label=org.slipway.name={self.name}"
        for container in docker("ps", "--all", "--quiet", "--filter", label).split():
            docker("rm", "--force", container, check=False)
        for network in docker("network", "ls", "--format", "{{.Name}}").split():
            if network.startswith(f"{self.name}-"):
                docker("network", "rm", network, check=False)
        for volume in docker("volume", "ls", "--quiet", "--filter", label).split():
            docker("volume", "rm", "--force", volume, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class Deployed:
    """A deploy that went through."""

    def __init__(self, release: str, answers: dict[str, dict[str, Any]]) -> None:
        self.id = release
        self.answers = answers
        """Verb -> what the engine answered; a verb with nothing to do was not called."""

    @property
    def changed(self) -> list[str]:
        """The verbs that changed something."""
        return [verb for verb, answer in self.answers.items() if answer["changed"]]


class Poller:
    """Asks an environment many times a second, and keeps what it missed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._poll)
        self.versions: list[str] = []
        self.failures: list[str] = []

    def __enter__(self) -> Poller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._end.wait(0.03):
            try:
                self.versions.append(get(self._port)["version"])
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(str(error))


def _asked(**request: Any) -> str:
    return json.dumps({"protocol": PROTOCOL, **request})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def backend_image() -> str:
    """The newest backend image of this machine."""
    lock = KIT / "inventories" / "local" / "images.lock.yml"
    tags = yaml.safe_load(lock.read_text())["images"].get(BACKEND, {}) if lock.exists() else {}
    if not tags:
        pytest.fail("There is no backend image on this machine. Run playbooks/images.yml first.")
    return f"{BACKEND}:{list(tags)[-1]}"


def forget(repository: str) -> None:
    """Remove all images of a repository, here and in the registry of this machine."""
    digests = docker("images", "--digests", "--format", "{{.Digest}}", repository).split()
    for image in docker("images", "--quiet", repository).split():
        docker("image", "rm", "--force", image, check=False)
    for digest in {digest for digest in digests if digest.startswith("sha256:")}:
        connection = http.client.HTTPConnection(REGISTRY, timeout=5)
        connection.request("DELETE", f"/v2/{repository.partition('/')[2]}/manifests/{digest}")
        connection.getresponse().read()
        connection.close()


@pytest.fixture(scope="session")
def images() -> Iterator[None]:
    """The application in three versions, in the registry of this machine."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.fail("There is no Docker engine on this machine. Run playbooks/provision.yml first.")
    base = backend_image()
    for version, revisions in IMAGES.items():
        arguments = {"BASE": base, "VERSION": version, "REVISIONS": revisions}
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        docker(
            "build",
            "--quiet",
            f"--tag={REPOSITORY}:{version}",
            *given,
            "--label=org.slipway.test=engine",
            str(KIT / "tests" / "engine" / "app"),
        )
        docker("push", "--quiet", f"{REPOSITORY}:{version}")
    yield
    forget(REPOSITORY)
    assert not docker("ps", "--all", "--quiet", "--filter", f"name=^{PREFIX}")
    assert not docker("volume", "ls", "--quiet", "--filter", f"name=^{PREFIX}")
    assert not docker("network", "ls", "--quiet", "--filter", f"name=^{PREFIX}")


Make = Callable[[], Environment]


@pytest.fixture(scope="session")
def make_environment(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Makes environments, each with a name and a port of its own, and removes them all."""
    made: list[Environment] = []
    root = tmp_path_factory.mktemp("srv")
    if not (EDGE / "switch.caddyfile").exists():
        pytest.fail("There is no edge on this machine. Run playbooks/edge.yml first.")
    (root / "edge").symlink_to(EDGE)

    def make() -> Environment:
        made.append(Environment(f"{PREFIX}{len(made)}", root, free_port()))
        # A run that was killed may have left containers and volumes of that name.
        made[-1].clear()
        return made[-1]

    yield make
    for environment in made:
        environment.clear()


@pytest.fixture
def environment(make_environment: Make) -> Iterator[Environment]:
    """An environment on which nothing was deployed yet."""
    fresh = make_environment()
    yield fresh
    fresh.clear()


@pytest.fixture(scope="module")
def serving(make_environment: Make) -> Environment:
    """An environment on which 1.0 serves, for tests after which it still does."""
    environment = make_environment()
    environment.deploy("1.0")
    return environment


@pytest.fixture(scope="module")
def settled_once(make_environment: Make) -> Environment:
    """The environment behind `settled`."""
    return make_environment()


@pytest.fixture
def settled(settled_once: Environment) -> Environment:
    """An environment on which 1.0 serves, and which a test may change; its schema stays at 0001."""
    settled_once.deploy("1.0")
    return settled_once


@pytest.fixture
def poll() -> Callable[[Environment], Poller]:
    """Polls an environment in the background."""
    return lambda environment: Poller(environment.port)
