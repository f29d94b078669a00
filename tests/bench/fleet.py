"""What a fleet costs beside one host, and a cold host beside the same by hand, on machines of the lab in one run."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from lab.lab import Lab
from lab.machines import MACHINES
from lab.ssh import USER
from tests.bench import by_hand
from tests.bench.commands import ROOT, out, step, timed
from tests.bench.images import REGISTRY, Images
from tests.bench.postgres import Postgres
from tests.bench.replay import noted
from tests.bench.table import Row
from tests.faults.environment import Play, Running
from tests.fresh.machine import phases

NAME = "slipway-testfleet"
NETWORK, COLD_NETWORKS = "10.213.5", tuple(f"10.213.{number}" for number in range(21, 26))
PORT, BY_HAND_PORT = 4190, 4191
FOLDER = f"/srv/{NAME}-by-hand"
LOCK = ROOT / "inventories/local/images.lock.yml"
BACKEND = f"{REGISTRY}/slipway/backend"
SIX = ("app1", "app2", "app3", "edge1", "database1", "backup1")
"""What a host is called in the lab says nothing here: each takes the application."""
THREE = ",".join(SIX[:3])
PACKAGES = "docker.io docker-cli docker-compose docker-buildx ca-certificates"
PULL, MIGRATE, UP = "pull --quiet", "run --rm -T backend migrate up", "up -d --wait"
TIMES, DEPLOYS = 5, 3
SOAK = yaml.safe_load((ROOT / "roles/release/defaults/main.yml").read_text())["release_soak_seconds"]
"""Seconds that a release is watched where nobody says otherwise."""


class Fleet:
    """Six hosts, and pairs of cold ones before them, up to :meth:`remove`. `folder` is for files."""

    def __init__(self, folder: Path) -> None:
        self.complaints: list[str] = []
        self.said: list[str] = []
        """Where the time of runs went."""
        self._folder = folder
        self._lab = Lab(NAME, folder / "lab", network=NETWORK)
        self._cold = [
            Lab(f"{NAME}-cold{number}", folder / f"cold{number}", network=network)
            for number, network in enumerate(COLD_NETWORKS)
        ]
        self._postgres = Postgres(f"{NETWORK}.1")
        self._images = Images(f"{REGISTRY}/{NAME}/backend")
        self._inventory = folder / "fleet.json"

    def start(self) -> None:
        """Have an image to deploy."""
        self._push("first")

    def remove(self) -> None:
        """Remove everything that was made, whatever of it is there."""
        step("fleet: remove the hosts")
        self._postgres.stop()
        for lab in (self._lab, *self._cold):
            lab.down()
        self._images.remove()

    def rows(self) -> Iterator[Row]:
        """What is measured."""
        yield self._cold_host()
        self._deploy_to_six()
        yield self._nothing_to_change()
        yield self._nothing_to_change_anywhere()
        yield from self._one_batch()
        yield self._one_batch_as_it_comes()
        yield self._one_batch_played_again()

    # --- what is measured ------------------------------------------------------------------------------------------

    def _cold_host(self) -> Row:
        step(f"cold: two bare hosts, one by the kit and one by hand, {len(self._cold)} times")
        inventory = self._folder / "cold.json"
        inventory.write_text(json.dumps(self._variables("cold", "sqlite:////app/data/backend.db", ("app1",))))
        hand, kit = [], []
        for lab, network in zip(self._cold, COLD_NETWORKS, strict=True):
            # The second one is in no group that the kit would do anything to.
            lab.up([MACHINES["app1"], MACHINES["backup1"]], engine=False, registry=False)
            os.sync()
            hand.append(timed(self._cold_by_hand, lab, MACHINES["backup1"].host(network).address))
            # What runs on one, and what it has left to be written, would be in the other's way.
            lab.compose("kill", "backup1")
            os.sync()
            play = self._run(lab, inventory, "site", tag="first")
            kit.append(play.seconds)
            # Removed in the end: where ext4 has no journal, it gives no inode away that was freed in the last five
            # minutes, and looks at each of those again for every file that is written, which a new host does a lot.
            lab.compose("kill", "app1")
        self.said.append(f"cold host in {play.seconds:.2f} s: {phases(play.output)}")
        return _beside("cold host to verified, beside apt, pull, migrate, up", kit, hand, 1.5)

    def _deploy_to_six(self) -> None:
        step("fleet: boot six hosts and deploy to them; this takes some minutes")
        self._lab.up([MACHINES[name] for name in SIX], registry=False)
        self._postgres.start()
        self._inventory.write_text(json.dumps(self._variables("fleet", self._postgres.url, SIX)))
        self._play("site", tag="first")

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

    def _one_batch(self) -> Iterator[Row]:
        step("fleet: deploy new tags to three hosts at once, and to one, by hand and by the kit")
        hand_one, hand_three, kit_one, kit_three = [], [], [], []
        self._everywhere(f"{self._place()} && {_compose('first', PULL, MIGRATE, UP)}")
        for number in range(DEPLOYS):
            hand_one.append(timed(self._by_hand, self._push(f"hand-one-{number}"), SIX[0]))
            hand_three.append(timed(self._by_hand, self._push(f"hand-three-{number}"), *SIX[:3]))
        # Each of them asks itself every second whether it is healthy, which takes time from what comes now.
        self._everywhere(_compose("first", "down"))
        for number in range(DEPLOYS):
            kit_one.append(self._play("deploy", tag=self._push(f"one-{number}"), limit=SIX[0]).seconds)
            play = self._play("deploy", tag=self._push(f"three-{number}"), limit=THREE, release_serial="100%")
            kit_three.append(play.seconds)
        self.said.append(f"new tag on three hosts in {kit_three[-1]:.2f} s: {phases(play.output)}")
        yield _beside("fleet: new tag, no soak, three at once beside one", kit_three, kit_one, 1.4)
        yield Row("fleet: the same by hand", "s", hand_three, hand_one)

    def _one_batch_as_it_comes(self) -> Row:
        step(f"fleet: the same with the soak of {SOAK} s that a deploy has where nobody says otherwise")
        one, three = [], []
        for number in range(DEPLOYS):
            one.append(self._watched(f"watched-one-{number}", SIX[0]))
            three.append(self._watched(f"watched-three-{number}", THREE))
        return _beside(f"fleet: new tag, soak of {SOAK} s, three beside one", three, one, 1.4)

    def _watched(self, tag: str, limit: str) -> float:
        self._push(tag)
        play = self._play("deploy", tag=tag, limit=limit, release_serial="100%", release_soak_seconds=str(SOAK))
        return play.seconds

    def _one_batch_played_again(self) -> Row:
        step("fleet: the same again, with what hosts do played from runs in which each had the machine to itself")
        with noted(self._everywhere) as play_again:
            for number in range(DEPLOYS):
                self._play("deploy", tag=self._push(f"noted-one-{number}"), limit=SIX[0])
                tag = self._push(f"noted-three-{number}")
                # One after the other, so that no host waits for another.
                self._play("deploy", tag=tag, limit=THREE, release_serial="100%", forks=1)
            play_again()
            one = [self._play("deploy", tag=tag, limit=SIX[0]).seconds for _ in range(DEPLOYS)]
            three = [self._play("deploy", tag=tag, limit=THREE, release_serial="100%").seconds for _ in range(DEPLOYS)]
        return _beside("fleet: the same, hosts played again", three, one, 1.4)

    # --- how -------------------------------------------------------------------------------------------------------

    def _unchanged(self, playbook: str, limit: str = "") -> Play:
        play = self._play(playbook, tag="first", limit=limit)
        if play.changed:
            self.complaints.append(f"{playbook}.yml with nothing to do reports changed={play.changed}")
        return play

    def _play(self, playbook: str, *, tag: str, limit: str = "", forks: int = 0, **variables: str) -> Play:
        options = [*(["--limit", limit] if limit else []), *(["--forks", str(forks)] if forks else [])]
        return self._run(self._lab, self._inventory, playbook, *options, tag=tag, **variables)

    def _run(self, lab: Lab, inventory: Path, playbook: str, *more: str, tag: str, **variables: str) -> Play:
        program = str(ROOT / ".venv/bin/ansible-playbook")
        options = ["-i", str(lab.inventory), "-i", str(inventory), *more]
        extra = ["--extra-vars", json.dumps({"backend_tag": tag, **variables})]
        command = [program, *options, *extra, f"playbooks/{playbook}.yml"]
        return Running(command, Path(tempfile.mkdtemp(dir=self._folder, prefix="cp-"))).wait().ok()

    def _push(self, tag: str) -> str:
        newest = next(reversed(yaml.safe_load(LOCK.read_text())["images"][BACKEND]))
        return self._images.push(tag, f"{BACKEND}:{newest}")

    def _by_hand(self, tag: str, *machines: str) -> None:
        """A new tag on all of them at once; as the kit does it, the first one migrates."""
        scripts = [_compose(tag, PULL, *([] if number else [MIGRATE]), UP) for number, _ in enumerate(machines)]
        with ThreadPoolExecutor() as pool:
            calls = [
                pool.submit(self._call, self._lab, MACHINES[machine].host(NETWORK).address, script)
                for machine, script in zip(machines, scripts, strict=True)
            ]
        for call in calls:
            call.result()

    def _everywhere(self, script: str) -> None:
        for host in SIX[:3]:
            self._call(self._lab, MACHINES[host].host(NETWORK).address, script)

    def _cold_by_hand(self, lab: Lab, address: str) -> None:
        install = f"DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends {PACKAGES}"
        script = f"apt-get -q update && {install} && {self._place()} && {_compose('first', PULL, MIGRATE, UP)}"
        self._call(lab, address, script)

    def _place(self) -> str:
        """The command that lays on a host what docker compose reads there."""
        files = Path(tempfile.mkdtemp(dir=self._folder, prefix="by-hand-"))
        by_hand.write(files, name=NAME, repository=self._images.repository, publish=f"{BY_HAND_PORT}")
        packed = out("sh", "-c", f"tar -cz -C {files} . | base64 -w0").strip()
        return f"mkdir -p {FOLDER} && echo {packed} | base64 -d | tar -xz -C {FOLDER}"

    def _call(self, lab: Lab, address: str, script: str) -> None:
        """One call over SSH."""
        out("ssh", "-o", "ControlPath=none", *lab.ssh_options, f"{USER}@{address}", f"sudo sh -c {shlex.quote(script)}")

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


def _compose(tag: str, *verbs: str) -> str:
    """The command that has docker compose do this, one after the other."""
    return " && ".join([f"cd {FOLDER}", f"export TAG={tag}", *(f"docker compose {verb}" for verb in verbs)])


def _beside(what: str, kit: list[float], floor: list[float], ratio: float) -> Row:
    return Row(what, "s", kit, floor, bound=ratio * statistics.median(floor))
