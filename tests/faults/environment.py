"""An environment on the lab's machines, operated as its operator does it: with playbooks, over SSH."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.ssh import USER
from slipway.protocol import PROTOCOL
from tests.faults.lab import Lab, Machine
from tests.faults.load import Load

KIT = Path(__file__).parents[2]
NAME = "shop-faults"
FOLDER = f"/srv/slipway/{NAME}"
"""Where a machine keeps it."""
TASKS = "/run/containerd/io.containerd.runtime.v2.task/moby"
"""Where containerd keeps a folder for each container that runs."""
HOST = "shop.test"
"""The name that the edge answers to."""
ENTRY = 80
ROW = b"written before"
"""What is in the database before anything goes wrong."""
SECRET = "never-to-be-seen-0123456789-abcdefghij"
KEY = "k" * 32
RECAP = re.compile(r"^\S+\s+: ok=\d+\s+changed=(?P<changed>\d+)\s+unreachable=0\s+failed=0\s", re.MULTILINE)
TABLE = re.compile(r"^\s*(\S+) +([0-9a-f]{16}|[?-]) +([0-9a-f]{16}|[?-]) +(\S.*?)\s*$", re.MULTILINE)
PATIENCE = 180.0
"""Seconds after which a playbook counts as hanging."""


@dataclass(frozen=True)
class Play:
    """How a playbook ended, and all that it printed."""

    code: int
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        """How many tasks changed something, on all hosts; for a play that went through."""
        found = RECAP.findall(self.output)
        assert found, self.output
        return sum(int(changed) for changed in found)

    @property
    def table(self) -> dict[str, tuple[str, str, str]]:
        """Host -> the release before and after it, and how it ended there, as the play says it of several hosts."""
        return {host: (before, after, result) for host, before, after, result in TABLE.findall(self.output)}

    def ok(self) -> Play:
        """The same, or AssertionError with what it printed."""
        assert self.code == 0, f"it ended with {self.code}:\n{self.output}"
        return self

    def failed(self, *sentences: str) -> Play:
        """The same, or AssertionError: it was to fail, and to say all of this."""
        assert self.code != 0, f"it was to fail:\n{self.output}"
        for sentence in sentences:
            assert sentence in self.output, f"it does not say {sentence!r}:\n{self.output}"
        return self


class Running:
    """A playbook at work."""

    def __init__(self, command: list[str], connections: Path) -> None:
        """`connections` is where SSH keeps its connections open: two controllers share none."""
        self._began = time.monotonic()
        # In a space of its own of processes, which ends as one: workers, SSH and connections kept open for later.
        alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment |= {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
        environment |= {"ANSIBLE_SSH_CONTROL_PATH_DIR": str(connections)}
        self._process = subprocess.Popen(
            [*alone, *command],
            cwd=KIT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self) -> Play:
        """Wait for its end."""
        try:
            output, _ = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as hung:
            self.kill()
            raise AssertionError(f"the playbook hung:\n{(hung.stdout or b'').decode()}") from None
        return Play(self._process.returncode, output, time.monotonic() - self._began)

    def end(self) -> None:
        """End it where it has not ended, and nobody waits for it any more."""
        if self._process.returncode is None:
            self.kill()

    def kill(self) -> None:
        """Kill it with no warning, with its workers and its connections, as a controller that loses its power."""
        self._process.kill()
        self._process.communicate()


class Environment:
    """The environment `shop-faults` on the lab's machines for applications, behind those for an edge if it has some.

    Where one machine has to be asked and none is named, that is the first.
    """

    def __init__(self, lab: Lab, repository: str) -> None:
        self.lab = lab
        self.machine = lab.machine
        self.address = (lab.group("edge") or [lab.machine])[0].address
        """Where users arrive."""
        self.repository = repository
        self.inventory = lab.folder / "inventory.json"
        self._lock = lab.folder / "images.lock.yml"
        self._started: list[Running] = []
        self.inventory.write_text(json.dumps(self._hosts(), indent=2))

    # --- what an operator does -------------------------------------------------------------------------------------

    def start(self, playbook: str, *, check: bool = False, options: Sequence[str] = (), **variables: Any) -> Running:
        """Start a playbook; with `check` it only says what it would do."""
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        # A file would be one more thing to tidy, and there is no secret among them that is worth one.
        extra = ["--extra-vars", json.dumps(variables)] if variables else []
        mode = ["--check", "--diff"] if check else []
        command = [program, "-i", str(self.inventory), *extra, *mode, *options, f"playbooks/{playbook}.yml"]
        running = Running(command, Path(tempfile.mkdtemp(dir=self.lab.folder, prefix="cp-")))
        self._started.append(running)
        return running

    def play(self, playbook: str, **variables: Any) -> Play:
        """Run a playbook to its end."""
        return self.start(playbook, **variables).wait()

    def start_deploy(
        self, version: str, *, variables: dict[str, Any] | None = None, check: bool = False, **change: Any
    ) -> Running:
        """Start to deploy a version of the application; `change` goes into its contract, `variables` to Ansible."""
        return self.start("deploy", check=check, app_services=self.services(version, **change), **(variables or {}))

    def deploy(self, version: str, *, variables: dict[str, Any] | None = None, **change: Any) -> Play:
        """The same, to its end."""
        return self.start_deploy(version, variables=variables, **change).wait()

    def rollback(self, release: str = "", **variables: Any) -> Play:
        """Go back to the release before, or to a named one."""
        return self.play("rollback", release=release, app_services=self.services("1.0"), **variables)

    def digest(self, version: str) -> str:
        """The digest of a version in the registry."""
        listed = subprocess.run(
            ["docker", "image", "inspect", "--format", "{{index .RepoDigests 0}}", f"{self.repository}:{version}"],
            capture_output=True,
            text=True,
            check=True,
        )
        return listed.stdout.strip().partition("@")[2]

    def forget(self, version: str) -> str:
        """Remove a version's image from the machine where it is there; answers its digest."""
        digest = self.digest(version)
        reference = f"{self.repository}@{digest}"
        if self.machine.docker("image", "ls", "--quiet", reference):
            self.machine.docker("image", "rm", "--force", reference)
        return digest

    def leave(self) -> None:
        """End what a test that broke off has left running here."""
        for running in self._started:
            running.end()

    def destroy(self) -> None:
        """Remove it with all it holds, by the engine: the playbook would take the engine along."""
        run = f"faults-{time.monotonic_ns()}"
        # A test that broke off may have left a lease.
        request = {"protocol": PROTOCOL, "name": NAME, "run": run, "by": "faults", "wait": 90}
        for machine in self.lab.group("app"):
            machine.run("slipway", "destroy", "--json", stdin=json.dumps(request))

    def services(
        self,
        version: str,
        *,
        env: dict[str, str] | None = None,
        migrate: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        **change: Any,
    ) -> dict[str, Any]:
        """The application's contract, with times that suit a test."""
        app: dict[str, Any] = {
            "image": self.repository,
            "tag": version,
            "user": "1001:1001",
            "port": 8000,
            "publish": 4000,
            "route": {"hosts": [HOST]},
            # Longer than the slow request of the load takes.
            "drain_seconds": 6,
            "stop_grace_period": 2,
            "env": env or {},
            # A thread for each connection.
            "resources": {"memory": "64m", "pids": 200},
            "config_files": [
                {
                    "path": "/app/config/app.json",
                    "content": {"auth": {"jwtSecret": SECRET}, **(config or {})},
                    "gid": 1001,
                }
            ],
            "health": {
                "path": "/",
                "json": {"status": "ready"},
                "version": "version",
                "start_interval": 0.1,
                "start_period": 10,
            },
            "migrate": {
                **{verb: ["migrate", verb] for verb in ("up", "plan", "status", "sql")},
                "dialect": "sqlite",
                "down": ["migrate", "down", "{revision}"],
                "backup": {verb: ["backup", verb] for verb in ("create", "verify", "count", "restore")},
                "timeout": 10,
                **(migrate or {}),
            },
            "volumes": {"data": {"path": "/app/data", "uid": 1001, "gid": 1001}},
        }
        return {"app": {**app, **change}}

    # --- what users do ---------------------------------------------------------------------------------------------

    def load(self) -> Load:
        """The load of its users, by way of the edge."""
        return Load(f"{self.address}:{ENTRY}", HOST)

    def write(self, row: bytes) -> None:
        """Write a row into the database."""
        self._ask("POST", "/", row)

    def rows(self) -> list[bytes]:
        """All rows of the database."""
        return self._ask("GET", "/rows").splitlines()

    def version(self) -> str:
        """Which version answers."""
        return str(json.loads(self._ask("GET", "/"))["version"])

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        with contextlib.closing(http.client.HTTPConnection(self.address, ENTRY, timeout=10)) as connection:
            connection.request(method, path, body=body, headers={"Host": HOST})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status in (200, 201), f"{method} {path} answered {answer.status}: {text!r}"
            return text

    # --- how it stands ---------------------------------------------------------------------------------------------

    def history(self, on: Machine | None = None) -> list[dict[str, Any]]:
        """What happened, oldest first, as the operator on the machine is told."""
        runs: list[dict[str, Any]] = json.loads(
            (on or self.machine).run("slipway", "history", "--name", NAME, "--last", "1000", "--json")
        )
        return runs

    def last(self, on: Machine | None = None) -> dict[str, Any]:
        """The last run of the history."""
        return self.history(on)[-1]

    def current(self, on: Machine | None = None) -> str:
        """The release that serves, by the machine's own word."""
        return (on or self.machine).path(f"{FOLDER}/current").readlink().name

    def lease(self, on: Machine | None = None) -> dict[str, Any]:
        """Who is deploying, as the machine keeps it."""
        lease: dict[str, Any] = json.loads((on or self.machine).path(f"{FOLDER}/lease.json").read_bytes())
        return lease

    def routed(self, on: Machine | None = None) -> str:
        """The release that the edge of the machine sends traffic to, by the first line of its file there."""
        site = (on or self.machine).path(f"/srv/slipway/edge/switch/{NAME}.caddy").read_text()
        return site.partition("\n")[0].removeprefix("# release ")

    def has_moved_from(self, release: str, on: Machine | None = None) -> bool:
        """Whether the edge of the machine sends traffic to another release by now."""
        with contextlib.suppress(OSError):
            return self.routed(on) != release
        return False

    def containers(self, release: str) -> list[str]:
        """The containers of a release that run, by their whole ids."""
        label = f"label=org.slipway.release={release}"
        return self.machine.docker("ps", "--quiet", "--no-trunc", "--filter", label).split()

    def have_ended(self, containers: Sequence[str]) -> bool:
        """Whether none of these runs any more. It asks no daemon, which would answer too late for a short moment."""
        return not any((self.machine.path(TASKS) / one).exists() for one in containers)

    def serves(self, version: str) -> None:
        """AssertionError unless this version serves, is just what its release declares, and nothing was lost."""
        assert self.version() == version
        # Its exit code says whether all is as declared.
        self.machine.run("slipway", "status", "--name", NAME)
        assert ROW in self.rows()

    def goes_on(self, version: str = "1.1", **change: Any) -> None:
        """AssertionError unless the next run needs no help: it deploys, and one after it has nothing to do."""
        self.deploy(version, **change).ok()
        self.serves(version)
        assert self.deploy(version, **change).ok().changed == 0

    # --- how -------------------------------------------------------------------------------------------------------

    def _hosts(self) -> dict[str, Any]:
        groups = {
            group: {
                "hosts": {
                    machine.name: {"ansible_host": machine.address, "host_private_address": machine.address}
                    for machine in self.lab.group(group)
                }
            }
            for group in ("app", "edge")
            if self.lab.group(group)
        }
        variables = {
            "ansible_user": USER,
            "ansible_ssh_common_args": " ".join(self.lab.ssh_options),
            "slipway_name": NAME,
            "slipway_environment": "faults",
            # As behind TLS inspection: the machine shall trust what the controller trusts.
            "docker_ca_bundle": "/etc/ssl/certs/ca-certificates.crt",
            # A registry that goes away is asked again after five seconds, and not four times more after that.
            "docker_daemon_options": {"max-download-attempts": 2},
            "app_image_tag_strategy": "mutable",
            "release_fingerprint_key": KEY,
            "release_images_lock_file": str(self._lock),
            "release_min_free_mb": 1,
            "release_soak_seconds": 1,
            "edge_images_lock_file": str(KIT / "inventories/local/images.lock.yml"),
        }
        return {"all": {"vars": variables, "children": groups}}
