"""The environment `slipway-bench` on this machine, the same by hand, and what is measured on them."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from slipway.protocol import PROTOCOL
from tests.bench import by_hand
from tests.bench.commands import attempt, out, step, timed
from tests.bench.images import REGISTRY, Images
from tests.bench.poller import Poller, Seen, watched
from tests.bench.table import Row, seen_rows
from tests.fresh.machine import phases

NAME = "slipway-bench"
BY_HAND = f"{NAME}-by-hand"
REPOSITORY = f"{REGISTRY}/{NAME}/backend"
PORT, BY_HAND_PORT, RUN_PORT = 4190, 4191, 4192

TIMES = 5
"""How often a thing is measured that takes a second or two."""
DEPLOYS = 3
"""How often a new tag is deployed: each is another image."""
RECAP = re.compile(r"^here\s+: ok=\d+\s+changed=(?P<changed>\d+)\s+unreachable=0\s+failed=0\s", re.MULTILINE)
MB, MIB = 1e6, 1024.0 * 1024.0


@dataclass
class Here:
    """The environment `slipway-bench`, the same by hand, and what is measured on them. `folder` is for files."""

    folder: Path
    complaints: list[str] = field(default_factory=list)
    took: str = ""
    """What the last playbook said of the time of its phases."""
    said: list[str] = field(default_factory=list)
    """Where the time of runs went."""
    _tag: str = ""
    _images: Images = field(default_factory=lambda: Images(REPOSITORY))

    def start(self) -> None:
        """Deploy the environment, and start the same by hand."""
        step("deploy an environment of its own")
        (self.folder / "inventory.json").write_text(json.dumps(inventory()))
        self.play("site")
        lock = yaml.safe_load((self.folder / "images.lock.yml").read_text())
        self._tag = next(iter(lock["images"][REPOSITORY]))
        step("start the same by hand")
        by_hand.write(self.folder, name=BY_HAND, repository=REPOSITORY, publish=f"127.0.0.1:{BY_HAND_PORT}")
        self._by_hand_new_tag(self._tag)

    def remove(self) -> None:
        """Remove everything that was made, whatever of it is there."""
        step("remove everything")
        request = {"protocol": PROTOCOL, "name": NAME, "run": "bench", "by": "bench"}
        attempt([*sudo(), "slipway", "destroy", "--json"], stdin=json.dumps(request))
        if (self.folder / "compose.yml").exists():
            attempt(self._compose("down", "--volumes", "--timeout", "5"), env=self._environment(self._tag))
        attempt(["docker", "rm", "--force", "--volumes", f"{NAME}-run"])
        self._images.remove()

    # --- what is measured ------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """What is measured."""
        yield from self._playbooks()
        yield from self._switches()
        yield from self._image()

    def _playbooks(self) -> Iterator[Row]:
        """Runs that have nothing to do."""
        step("make up again")
        up = [self._nothing_to_do("site") for _ in range(DEPLOYS)]
        self.said.append(f"second `make up`: {self.took}")
        yield Row("second `make up`", "s", up, bound=6)
        step("deploy again")
        deploy = [self._nothing_to_do("deploy") for _ in range(TIMES)]
        by_hand = [timed(self._by_hand_up, self._tag) for _ in range(TIMES)]
        yield Row("deploy, nothing to change", "s", deploy, by_hand)

    def _switches(self) -> Iterator[Row]:
        """New tags and ways back, with what a client saw of them."""
        base = f"{REPOSITORY}:{self._tag}"
        tags = [self._images.push(f"kit-{number}", base) for number in range(DEPLOYS)]
        step("deploy new tags")
        kit = [watched(Poller(PORT), timed, self._deploy, tag) for tag in tags]
        self.said.append(f"new tag: {self.took}")
        tags_by_hand = [self._images.push(f"hand-{number}", base) for number in range(DEPLOYS)]
        step("deploy new tags by hand")
        by_hand = [watched(Poller(BY_HAND_PORT), timed, self._by_hand_new_tag, tag) for tag in tags_by_hand]
        yield from _switch_rows("new tag", kit, by_hand)
        step("roll back")
        back = [watched(Poller(PORT), timed, self._rollback) for _ in range(DEPLOYS)]
        back_by_hand = [
            watched(Poller(BY_HAND_PORT), timed, self._by_hand_up, tag)
            for tag in reversed([self._tag, *tags_by_hand[:-1]])
        ]
        yield from _switch_rows("rollback", back, back_by_hand)

    def _image(self) -> Iterator[Row]:
        """The image as it was built, and a container of it."""
        step("look at the image")
        reference = f"{REPOSITORY}:{self._tag}"
        out("docker", "pull", "--quiet", reference)
        yield Row(
            "image, unpacked",
            "MB",
            [int(out("docker", "image", "inspect", "-f", "{{.Size}}", reference)) / MB],
            bound=95,
        )
        yield Row("image, gzipped", "MB", [self._images.gzipped(self._tag) / MB], bound=32)
        step("start containers")
        yield Row("docker run to first 200", "s", [self._run(reference) for _ in range(TIMES)], bound=0.8)
        yield Row("idle RSS", "MiB", [self._resident() for _ in range(DEPLOYS)], bound=70)

    # --- by the kit ------------------------------------------------------------------------------------------------

    def play(self, playbook: str, **variables: str) -> int:
        """Run a playbook on this machine; answers how many tasks changed something."""
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        extra = ["--extra-vars", json.dumps(variables)] if variables else []
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
        output = out(
            program, "-i", str(self.folder / "inventory.json"), *extra, f"playbooks/{playbook}.yml", env=environment
        )
        found = RECAP.search(output)
        if not found:
            raise SystemExit(f"playbooks/{playbook}.yml printed no recap:\n{output}")
        self.took = phases(output)
        return int(found["changed"])

    def _nothing_to_do(self, playbook: str) -> float:
        before = _containers()
        began = time.monotonic()
        changed = self.play(playbook)
        seconds = time.monotonic() - began
        if changed:
            self.complaints.append(f"{playbook}.yml with nothing to do reports changed={changed}")
        if _containers() != before:
            self.complaints.append(f"{playbook}.yml with nothing to do touched a container")
        return seconds

    def _deploy(self, tag: str) -> None:
        self.play("deploy", backend_tag=tag)

    def _resident(self) -> float:
        """Resident memory of the container's processes in MiB: started, asked 100 times, left alone for a while."""
        [container] = out("docker", "ps", "--quiet", "--filter", f"label=org.slipway.name={NAME}").split()
        out("docker", "restart", container)
        _wait_for_answer(PORT, container)
        for _ in range(100):
            _answers(PORT)
        time.sleep(2)
        pids = out("docker", "top", container, "-eo", "pid").split()[1:]
        status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in pids)
        return sum(int(kib) for kib in re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)) * 1024 / MIB

    def _rollback(self) -> None:
        out(*sudo(), "slipway", "rollback", "--name", NAME)

    # --- by hand ---------------------------------------------------------------------------------------------------

    def _by_hand_up(self, tag: str) -> None:
        out(*self._compose("up", "--detach", "--wait"), env=self._environment(tag))

    def _by_hand_new_tag(self, tag: str) -> None:
        out(*self._compose("pull", "--quiet"), env=self._environment(tag))
        out(*self._compose("run", "--rm", "backend", "migrate", "up"), env=self._environment(tag))
        self._by_hand_up(tag)

    def _compose(self, *words: str) -> list[str]:
        return ["docker", "compose", "--project-name", BY_HAND, "--file", str(self.folder / "compose.yml"), *words]

    @staticmethod
    def _environment(tag: str) -> dict[str, str]:
        return {**os.environ, "TAG": tag}

    # --- the image ----------------------------------------------------------------------------------------------------

    def _run(self, reference: str) -> float:
        name = f"{NAME}-run"
        command = f"docker run --detach --rm --name {name} --publish 127.0.0.1:{RUN_PORT}:4000 --read-only --tmpfs /tmp"
        command += f" --volume /app/data --volume {self.folder}/config:/app/config:ro"
        command += f" --env SEMIONT_ROOT=/app/config --env SEMIONT_ENV=bench {reference}"
        began = time.monotonic()
        out(*command.split())
        try:
            _wait_for_answer(RUN_PORT, name)
            return time.monotonic() - began
        finally:
            out("docker", "rm", "--force", "--volumes", name)


def inventory(**more: object) -> dict[str, Any]:
    """The environment `local` under another name, on another port, with images of its own."""
    here: dict[str, object] = {"hosts": {"here": None}}
    return {
        "all": {
            "vars": {
                "ansible_connection": "local",
                "ansible_python_interpreter": "/usr/bin/python3",
                "slipway_name": NAME,
                "slipway_environment": "local",
                "docker_source": "auto",
                "app_services": "{{ backend_services }}",
                "app_image_tag_strategy": "mutable",
                "backend_image": REPOSITORY,
                "backend_publish": PORT,
                "release_soak_seconds": 0,
                "images_backend_repository": REPOSITORY,
                "backend_jwt_secret": secrets.token_hex(32),
                "release_fingerprint_key": secrets.token_hex(32),
                **more,
            },
            "children": dict.fromkeys(("app", "builder", "registry"), here),
        }
    }


def _switch_rows(what: str, kit: Sequence[tuple[float, Seen]], hand: Sequence[tuple[float, Seen]]) -> Iterator[Row]:
    yield Row(what, "s", [seconds for seconds, _ in kit], [seconds for seconds, _ in hand])
    yield from seen_rows(what, [seen for _, seen in kit], [seen for _, seen in hand])


def _containers() -> dict[str, str]:
    """The kit's containers of this environment, the edge and the registry: id and since when."""
    found: dict[str, str] = {}
    for name in (NAME, "edge", "registry"):
        ids = out("docker", "ps", "--quiet", "--no-trunc", "--filter", f"label=org.slipway.name={name}").split()
        for line in out("docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *ids).splitlines():
            container, since = line.split()
            found[container] = since
    return found


def _wait_for_answer(port: int, container: str) -> None:
    end = time.monotonic() + 30
    while not _answers(port):
        if time.monotonic() > end:
            raise SystemExit(f"{container} did not answer within 30 seconds:\n{out('docker', 'logs', container)}")
        time.sleep(0.005)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def sudo() -> list[str]:
    """What comes before a command that needs root."""
    return [] if os.geteuid() == 0 else ["sudo", "-n"]
