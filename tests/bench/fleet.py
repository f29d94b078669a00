"""What a fleet costs beside one host, and a cold host beside the same by hand, on machines of the lab in one run."""

from __future__ import annotations

import json
import secrets
import shlex
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from lab.lab import Lab
from lab.machines import MACHINES
from lab.ssh import USER
from tests.bench import by_hand
from tests.bench.commands import ROOT, out, step, timed
from tests.bench.images import REGISTRY, Images
from tests.bench.postgres import Postgres
from tests.bench.table import Row
from tests.faults.environment import Play, Running
from tests.fresh.machine import phases

NAME = "slipway-testfleet"
NETWORK, COLD_NETWORK = "10.213.5", "10.213.6"
PORT, BY_HAND_PORT = 4190, 4191
FOLDER = f"/srv/{NAME}-by-hand"
LOCK = ROOT / "inventories/local/images.lock.yml"
BACKEND = f"{REGISTRY}/slipway/backend"
SIX = ("app1", "app2", "app3", "edge1", "database1", "backup1")
"""What a host is called in the lab says nothing here: each takes the application."""
THREE = ",".join(SIX[:3])
PACKAGES = "docker.io docker-cli docker-compose docker-buildx ca-certificates"
TIMES, DEPLOYS = 5, 3


class Fleet:
    """Six hosts and two cold ones from :meth:`start` to :meth:`remove`. `folder` is for files."""

    def __init__(self, folder: Path) -> None:
        self.complaints: list[str] = []
        self.said: list[str] = []
        """Where the time of runs went."""
        self._folder = folder
        self._lab = Lab(NAME, folder / "lab", network=NETWORK)
        self._cold = Lab(f"{NAME}-cold", folder / "cold", network=COLD_NETWORK)
        self._postgres = Postgres(f"{NETWORK}.1")
        self._images = Images(f"{REGISTRY}/{NAME}/backend")
        self._inventory = folder / "fleet.json"

    def start(self) -> None:
        """Boot six hosts, and deploy to all of them."""
        step("fleet: boot six hosts and deploy to them; this takes some minutes")
        self._lab.up([MACHINES[name] for name in SIX], registry=False)
        self._postgres.start()
        self._inventory.write_text(json.dumps(self._variables("fleet", self._postgres.url, SIX)))
        self._push("first")
        self._play("site", tag="first")

    def remove(self) -> None:
        """Remove everything that was made, whatever of it is there."""
        step("fleet: remove the hosts")
        self._postgres.stop()
        self._lab.down()
        self._cold.down()
        self._images.remove()

    def rows(self) -> Iterator[Row]:
        """What is measured."""
        yield self._nothing_to_change()
        yield self._nothing_to_change_anywhere()
        yield self._one_batch()
        yield self._cold_host()

    # --- what is measured ------------------------------------------------------------------------------------------

    def _nothing_to_change(self) -> Row:
        step("fleet: deploy again")
        one = [self._unchanged("deploy", limit=SIX[0]).seconds for _ in range(TIMES)]
        six = [self._unchanged("deploy") for _ in range(TIMES)]
        self.said.append(f"six hosts, nothing to change, in {six[-1].seconds:.2f} s: {phases(six[-1].output)}")
        return _beside("fleet: deploy, nothing to change, six beside one", [play.seconds for play in six], one, 2.5)

    def _nothing_to_change_anywhere(self) -> Row:
        step("fleet: site.yml again on one host")
        plays = [self._unchanged("site", limit=SIX[0]) for _ in range(DEPLOYS)]
        self.said.append(f"site.yml on one host in {plays[-1].seconds:.2f} s: {phases(plays[-1].output)}")
        return Row("ssh: site.yml, nothing to change", "s", [play.seconds for play in plays], bound=8)

    def _one_batch(self) -> Row:
        step("fleet: deploy new tags to three hosts at once, and to one")
        one, three = [], []
        for number in range(DEPLOYS):
            one.append(self._play("deploy", tag=self._push(f"one-{number}"), limit=SIX[0]).seconds)
            play = self._play("deploy", tag=self._push(f"three-{number}"), limit=THREE, release_serial="100%")
            three.append(play.seconds)
        self.said.append(f"new tag on three hosts in {three[-1]:.2f} s: {phases(play.output)}")
        return _beside("fleet: new tag, three at once beside one", three, one, 1.4)

    def _cold_host(self) -> Row:
        step("cold: two bare hosts, one by the kit and one by hand")
        # The second one is in no group that the kit would do anything to.
        self._cold.up([MACHINES["app1"], MACHINES["backup1"]], engine=False, registry=False)
        inventory = self._folder / "cold.json"
        inventory.write_text(json.dumps(self._variables("cold", "sqlite:////app/data/backend.db", ("app1",))))
        hand = timed(self._by_hand, "backup1")
        kit = self._run(self._cold, inventory, "site", tag="first")
        self.said.append(f"cold host in {kit.seconds:.2f} s: {phases(kit.output)}")
        return _beside("cold host to verified, beside apt, pull, migrate, up", [kit.seconds], [hand], 1.5)

    # --- how -------------------------------------------------------------------------------------------------------

    def _unchanged(self, playbook: str, limit: str = "") -> Play:
        play = self._play(playbook, tag="first", limit=limit)
        if play.changed:
            self.complaints.append(f"{playbook}.yml with nothing to do reports changed={play.changed}")
        return play

    def _play(self, playbook: str, *, tag: str, limit: str = "", **variables: str) -> Play:
        return self._run(self._lab, self._inventory, playbook, tag=tag, limit=limit, **variables)

    def _run(self, lab: Lab, inventory: Path, playbook: str, *, tag: str, limit: str = "", **variables: str) -> Play:
        program = str(ROOT / ".venv/bin/ansible-playbook")
        options = ["-i", str(lab.inventory), "-i", str(inventory), *(["--limit", limit] if limit else [])]
        extra = ["--extra-vars", json.dumps({"backend_tag": tag, **variables})]
        command = [program, *options, *extra, f"playbooks/{playbook}.yml"]
        return Running(command, Path(tempfile.mkdtemp(dir=self._folder, prefix="cp-"))).wait().ok()

    def _push(self, tag: str) -> str:
        newest = next(reversed(yaml.safe_load(LOCK.read_text())["images"][BACKEND]))
        return self._images.push(tag, f"{BACKEND}:{newest}")

    def _by_hand(self, machine: str) -> None:
        files = self._folder / "by-hand"
        files.mkdir()
        by_hand.write(files, name=NAME, repository=self._images.repository, publish=f"{BY_HAND_PORT}")
        packed = out("sh", "-c", f"tar -cz -C {files} . | base64 -w0").strip()
        script = [
            "apt-get -q update",
            f"DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends {PACKAGES}",
            f"mkdir -p {FOLDER}",
            f"echo {packed} | base64 -d | tar -xz -C {FOLDER}",
            f"cd {FOLDER}",
            "export TAG=first",
            *(f"docker compose {verb}" for verb in ("pull --quiet", "run --rm -T backend migrate up", "up -d --wait")),
        ]
        words = f"sudo sh -c {shlex.quote(' && '.join(script))}"
        address = MACHINES[machine].host(COLD_NETWORK).address
        out("ssh", "-o", "ControlPath=none", *self._cold.ssh_options, f"{USER}@{address}", words)

    def _variables(self, environment: str, url: str, hosts: tuple[str, ...]) -> dict[str, object]:
        variables = {
            "slipway_name": NAME,
            "slipway_environment": environment,
            "app_image_tag_strategy": "mutable",
            "backend_image": self._images.repository,
            "backend_publish": PORT,
            "backend_database_url": url,
            "backend_jwt_secret": secrets.token_hex(32),
            "release_fingerprint_key": secrets.token_hex(32),
            "release_images_lock_file": str(LOCK),
            "release_soak_seconds": 0,
        }
        return {"all": {"vars": variables, "children": {"app": {"hosts": {host: {} for host in hosts}}}}}


def _beside(what: str, kit: list[float], floor: list[float], ratio: float) -> Row:
    return Row(what, "s", kit, floor, bound=ratio * statistics.median(floor))
