"""What the kit costs, beside the same thing done by hand with docker compose on the same machine in the same run.

    make bench              a few minutes
    make bench fresh=1      and a fresh machine from nothing, some minutes more

It needs root, or sudo that asks for no password, and a machine that has been set up (tests/setup.yml).
It deploys an environment of its own, `slipway-bench`, and removes all of it in the end. A bound that is missed is
shown as missed; the exit code only says whether everything could be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from types import FrameType

import yaml

from slipway.protocol import PROTOCOL
from tests.bench.poller import Poller, Seen
from tests.bench.table import Row, render
from tests.fresh.machine import Machine, phases

ROOT = Path(__file__).parents[2]
NAME = "slipway-bench"
BY_HAND = f"{NAME}-by-hand"
REGISTRY = "127.0.0.1:5000"
REPOSITORY = f"{REGISTRY}/{NAME}/backend"
PORT, BY_HAND_PORT, RUN_PORT = 4190, 4191, 4192
MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"

TIMES = 5
"""How often a thing is measured that takes a second or two."""
DEPLOYS = 3
"""How often a new tag is deployed: each is another image."""
APPLICATION_LAYER = 1_000_000
"""Bytes in which one tag differs from the next, about what the bundled backend's own layer has."""

RECAP = re.compile(r"^here\s+: ok=\d+\s+changed=(?P<changed>\d+)\s+unreachable=0\s+failed=0\s", re.MULTILINE)
MB, MIB = 1e6, 1024.0 * 1024.0


def main() -> int:
    """Measure, print the table, and clean up whatever happens."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--fresh", action="store_true", help="measure `make up` on a fresh machine too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder, contextlib.ExitStack() as last:
        bench = Bench(Path(folder))
        last.callback(_to_the_end, bench.remove)
        bench.start()
        rows = [*bench.playbooks(), *bench.switches(), *bench.image()]
    if options.fresh:
        row, took = fresh()
        rows.append(row)
        bench.said.append(f"fresh machine: {took}")
    _say(
        "\n".join(["", render(rows), "", NOTES, "Where the time of the last of each went", *_indented(bench.said), ""])
    )
    if bench.complaints:
        _say("\n".join(["Not as it should be", *_indented(bench.complaints), ""]))
    missed = [row.what for row in rows if not row.within]
    _say(f"OVER its bound: {', '.join(missed)}." if missed else "All bounds are kept.")
    return 0


NOTES = """\
n          how often it was measured; the median counts
floor      docker compose by hand, on the same image and an equivalent compose file, in this run
gap        longest time between two good answers, asked 100 times a second
image      unpacked: the engine's Size; gzipped: config and layers of the registry's manifest, in 10^6 bytes
idle RSS   VmRSS of the container's processes after 100 requests, in 2^20 bytes
"""


@dataclass
class Bench:
    """The environment `slipway-bench`, the same by hand, and what is measured on them. `folder` is for files."""

    folder: Path
    complaints: list[str] = field(default_factory=list)
    took: str = ""
    """What the last playbook said of the time of its phases."""
    said: list[str] = field(default_factory=list)
    """Where the time of runs went."""
    _tag: str = ""

    def start(self) -> None:
        """Deploy the environment, and start the same by hand."""
        _step("deploy an environment of its own")
        (self.folder / "inventory.json").write_text(json.dumps(_inventory()))
        self.play("site")
        lock = yaml.safe_load((self.folder / "images.lock.yml").read_text())
        self._tag = next(iter(lock["images"][REPOSITORY]))
        _step("start the same by hand")
        self._write_by_hand()
        self._by_hand_new_tag(self._tag)

    def remove(self) -> None:
        """Remove everything that was made, whatever of it is there."""
        _step("remove everything")
        request = {"protocol": PROTOCOL, "name": NAME, "run": "bench", "by": "bench"}
        _try([*_sudo(), "slipway", "destroy", "--json"], stdin=json.dumps(request))
        if (self.folder / "compose.yml").exists():
            _try(self._compose("down", "--volumes", "--timeout", "5"), env=self._environment(self._tag))
        _try(["docker", "rm", "--force", "--volumes", f"{NAME}-run"])
        self._remove_from_registry()
        form = '{{join .RepoTags "\\n"}}{{"\\n"}}{{join .RepoDigests "\\n"}}'
        listing = _out("docker", "image", "ls", "--no-trunc", "--quiet", "--filter", f"reference={REPOSITORY}").split()
        for image in sorted(set(listing)):
            # By its names here and never by its id: the same image may be another environment's as well.
            names = _out("docker", "image", "inspect", "--format", form, image).split()
            _try(["docker", "image", "rm", *(name for name in names if name.startswith(REPOSITORY))])

    # --- what is measured ------------------------------------------------------------------------------------------

    def playbooks(self) -> Iterator[Row]:
        """Runs that have nothing to do."""
        _step("make up again")
        up = [self._nothing_to_do("site") for _ in range(DEPLOYS)]
        self.said.append(f"second `make up`: {self.took}")
        yield Row("second `make up`", "s", up, bound=6)
        _step("deploy again")
        deploy = [self._nothing_to_do("deploy") for _ in range(TIMES)]
        by_hand = [_timed(self._by_hand_up, self._tag) for _ in range(TIMES)]
        yield Row("deploy, nothing to change", "s", deploy, by_hand)

    def switches(self) -> Iterator[Row]:
        """New tags and ways back, with what a client saw of them."""
        tags = [self._push(f"kit-{number}") for number in range(DEPLOYS)]
        _step("deploy new tags")
        kit = [_watched(PORT, self._deploy, tag) for tag in tags]
        self.said.append(f"new tag: {self.took}")
        tags_by_hand = [self._push(f"hand-{number}") for number in range(DEPLOYS)]
        _step("deploy new tags by hand")
        by_hand = [_watched(BY_HAND_PORT, self._by_hand_new_tag, tag) for tag in tags_by_hand]
        yield from _switch_rows("new tag", kit, by_hand)
        _step("roll back")
        back = [_watched(PORT, self._rollback) for _ in range(DEPLOYS)]
        back_by_hand = [
            _watched(BY_HAND_PORT, self._by_hand_up, tag) for tag in reversed([self._tag, *tags_by_hand[:-1]])
        ]
        yield from _switch_rows("rollback", back, back_by_hand)

    def image(self) -> Iterator[Row]:
        """The image as it was built, and a container of it."""
        _step("look at the image")
        reference = f"{REPOSITORY}:{self._tag}"
        _out("docker", "pull", "--quiet", reference)
        yield Row(
            "image, unpacked",
            "MB",
            [int(_out("docker", "image", "inspect", "-f", "{{.Size}}", reference)) / MB],
            bound=95,
        )
        manifest = json.loads(_get(f"http://{REGISTRY}/v2/{NAME}/backend/manifests/{self._tag}"))
        size = sum(part["size"] for part in [manifest["config"], *manifest["layers"]])
        yield Row("image, gzipped", "MB", [size / MB], bound=32)
        _step("start containers")
        yield Row("docker run to first 200", "s", [self._run(reference) for _ in range(TIMES)], bound=0.8)
        yield Row("idle RSS", "MiB", [self._resident() for _ in range(DEPLOYS)], bound=70)

    # --- by the kit ------------------------------------------------------------------------------------------------

    def play(self, playbook: str, **variables: str) -> int:
        """Run a playbook on this machine; answers how many tasks changed something."""
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        extra = ["--extra-vars", json.dumps(variables)] if variables else []
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
        output = _out(
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
        [container] = _out("docker", "ps", "--quiet", "--filter", f"label=org.slipway.name={NAME}").split()
        _out("docker", "restart", container)
        _wait_for_answer(PORT, container)
        for _ in range(100):
            _answers(PORT)
        time.sleep(2)
        pids = _out("docker", "top", container, "-eo", "pid").split()[1:]
        status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in pids)
        return sum(int(kib) for kib in re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)) * 1024 / MIB

    def _rollback(self) -> None:
        _out(*_sudo(), "slipway", "rollback", "--name", NAME)

    # --- by hand ---------------------------------------------------------------------------------------------------

    def _by_hand_up(self, tag: str) -> None:
        _out(*self._compose("up", "--detach", "--wait"), env=self._environment(tag))

    def _by_hand_new_tag(self, tag: str) -> None:
        _out(*self._compose("pull", "--quiet"), env=self._environment(tag))
        _out(*self._compose("run", "--rm", "backend", "migrate", "up"), env=self._environment(tag))
        self._by_hand_up(tag)

    def _compose(self, *words: str) -> list[str]:
        return ["docker", "compose", "--project-name", BY_HAND, "--file", str(self.folder / "compose.yml"), *words]

    @staticmethod
    def _environment(tag: str) -> dict[str, str]:
        return {**os.environ, "TAG": tag}

    def _write_by_hand(self) -> None:
        config = self.folder / "config"
        (config / "environments").mkdir(parents=True)
        (config / "semiont.json").write_text(json.dumps({"version": "1.0.0", "projectName": BY_HAND}))
        settings = {"database": {"url": "sqlite:////app/data/backend.db"}, "auth": {"jwtSecret": secrets.token_hex(32)}}
        (config / "environments/bench.json").write_text(json.dumps(settings))
        # Read by the image's own user; the folder above is nobody else's.
        for path in (self.folder, config, config / "environments"):
            path.chmod(0o711)
        (self.folder / "compose.yml").write_text(BY_HAND_COMPOSE)

    # --- images ----------------------------------------------------------------------------------------------------

    def _push(self, tag: str) -> str:
        """Push the image once more with a layer of its own, and let the engine forget it, so that it is pulled."""
        reference = f"{REPOSITORY}:{tag}"
        with tempfile.TemporaryDirectory(dir=self.folder) as context:
            Path(context, "layer").write_bytes(secrets.token_bytes(APPLICATION_LAYER))
            lines = [f"FROM {REPOSITORY}:{self._tag}", "COPY layer /app/layer", f"ENV BACKEND_VERSION={tag}"]
            # The gate compares the version that the backend tells with the one that its image is labelled with.
            lines.append(f"LABEL org.opencontainers.image.version={tag}")
            Path(context, "Dockerfile").write_text("\n".join(lines))
            _out("docker", "build", "--quiet", "--tag", reference, context)
        _out("docker", "push", "--quiet", reference)
        _out("docker", "image", "rm", reference)
        return tag

    @staticmethod
    def _remove_from_registry() -> None:
        address = f"http://{REGISTRY}/v2/{NAME}/backend"
        try:
            tags = json.loads(_get(f"{address}/tags/list"))["tags"] or ()
            digests = {_ask(f"{address}/manifests/{tag}", "HEAD").headers["Docker-Content-Digest"] for tag in tags}
            for digest in digests:
                _ask(f"{address}/manifests/{digest}", "DELETE")
        except OSError as error:
            _step(f"could not remove {NAME} from the registry: {error}")

    def _run(self, reference: str) -> float:
        name = f"{NAME}-run"
        command = f"docker run --detach --rm --name {name} --publish 127.0.0.1:{RUN_PORT}:4000 --read-only --tmpfs /tmp"
        command += f" --volume /app/data --volume {self.folder}/config:/app/config:ro"
        command += f" --env SEMIONT_ROOT=/app/config --env SEMIONT_ENV=bench {reference}"
        began = time.monotonic()
        _out(*command.split())
        try:
            _wait_for_answer(RUN_PORT, name)
            return time.monotonic() - began
        finally:
            _out("docker", "rm", "--force", "--volumes", name)


def fresh() -> tuple[Row, str]:
    """`make up` on a fresh Debian 13, from what is committed here, and where its time went."""
    _step("a fresh machine; this takes minutes")
    with Machine(f"{NAME}-fresh", suite="trixie", user="root") as machine:
        machine.install_what_the_readme_names()
        machine.clone()
        up = machine.make("up").ok()
        return Row("`make up` on a fresh machine", "s", [up.seconds], bound=150), phases(up.output)


BY_HAND_COMPOSE = f"""\
services:
  backend:
    image: {REPOSITORY}:${{TAG}}
    user: "1001:1001"
    restart: unless-stopped
    stop_grace_period: 15s
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    mem_limit: 256m
    cpus: 1.0
    environment: {{SEMIONT_ROOT: /app/config, SEMIONT_ENV: bench, BACKEND_DRAIN_SECONDS: "0"}}
    ports: ["127.0.0.1:{BY_HAND_PORT}:4000"]
    volumes:
      - ./config:/app/config:ro
      - data:/app/data
volumes:
  data: {{}}
"""


def _inventory() -> dict[str, object]:
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
                "images_backend_repository": REPOSITORY,
                "backend_jwt_secret": secrets.token_hex(32),
                "release_fingerprint_key": secrets.token_hex(32),
            },
            "children": dict.fromkeys(("app", "builder", "registry"), here),
        }
    }


def _switch_rows(what: str, kit: Sequence[tuple[float, Seen]], by_hand: Sequence[tuple[float, Seen]]) -> Iterator[Row]:
    yield Row(what, "s", [seconds for seconds, _ in kit], [seconds for seconds, _ in by_hand])
    yield Row(f"{what}: gap", "s", [seen.gap for _, seen in kit], [seen.gap for _, seen in by_hand])
    yield Row(f"{what}: not answered", "", [seen.refused for _, seen in kit], [seen.refused for _, seen in by_hand])


def _watched(port: int, act: Callable[..., None], *arguments: str) -> tuple[float, Seen]:
    """How long an act took and what a client saw of it, a second before and after included."""
    with Poller(port) as poller:
        time.sleep(1)
        seconds = _timed(act, *arguments)
        time.sleep(1)
    return seconds, poller.seen()


def _timed(act: Callable[..., None], *arguments: str) -> float:
    began = time.monotonic()
    act(*arguments)
    return time.monotonic() - began


def _containers() -> dict[str, str]:
    """The kit's containers of this environment and of the registry: id and since when."""
    found: dict[str, str] = {}
    for name in (NAME, "registry"):
        ids = _out("docker", "ps", "--quiet", "--no-trunc", "--filter", f"label=org.slipway.name={name}").split()
        for line in _out("docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *ids).splitlines():
            container, since = line.split()
            found[container] = since
    return found


def _wait_for_answer(port: int, container: str) -> None:
    end = time.monotonic() + 30
    while not _answers(port):
        if time.monotonic() > end:
            raise SystemExit(f"{container} did not answer within 30 seconds:\n{_out('docker', 'logs', container)}")
        time.sleep(0.005)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _get(url: str) -> bytes:
    with _ask(url, "GET") as answer:
        return bytes(answer.read())


def _ask(url: str, method: str) -> HTTPResponse:
    request = urllib.request.Request(url, headers={"Accept": MANIFESTS}, method=method)
    answer: HTTPResponse = urllib.request.urlopen(request, timeout=10)
    return answer


def _out(*command: str, env: Mapping[str, str] | None = None) -> str:
    """What a command prints. One that fails ends the bench with what it said."""
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"`{' '.join(command)}` ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def _try(command: Sequence[str], *, stdin: str = "", env: Mapping[str, str] | None = None) -> None:
    """Remove something that may not be there."""
    with contextlib.suppress(OSError):
        subprocess.run(command, cwd=ROOT, env=env, input=stdin, capture_output=True, text=True, check=False)


def _sudo() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _to_the_end(act: Callable[[], None]) -> None:
    """Do something that nobody interrupts."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        act()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _step(text: str) -> None:
    sys.stderr.write(f"… {text}\n")
    sys.stderr.flush()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Interrupted. What was made has been removed.")
