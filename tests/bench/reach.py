"""What a release costs on one host over SSH, beside docker compose by hand over one ssh call, on that host in one run.

The host is a machine of its own (tests/faults/lab.py), provisioned by the kit's playbooks; it pulls from the registry
of this machine. Each run of a playbook, and each call by hand, opens an SSH connection of its own.
"""

from __future__ import annotations

import json
import secrets
import shlex
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import yaml

from lab.ssh import USER
from tests.bench import by_hand
from tests.bench.commands import ROOT, out, step, timed
from tests.bench.images import REGISTRY, Images
from tests.bench.poller import Poller, watched
from tests.bench.table import Row, seen_rows
from tests.faults.environment import Play, Running
from tests.faults.lab import MACHINE, Lab
from tests.fresh.machine import phases

NAME = "slipway-testbench"
NETWORK = "10.213.4"
HOST = "bench.test"
"""The name that its edge answers to."""
ENTRY, PORT, BY_HAND_PORT = 80, 4190, 4191
FOLDER = f"/srv/{NAME}-by-hand"
"""Where the host keeps what is done by hand."""
LOCK = ROOT / "inventories/local/images.lock.yml"
BACKEND = f"{REGISTRY}/slipway/backend"
FIRST = "first"
"""The tag that both start with."""

DEPLOYS = 3
TIMES = 5

NOT_COUNTED = ("soak", "drain")
"""Parts of an activation that come once traffic has moved."""


class Told(msgspec.Struct):
    """A run as `slipway history --json` tells it: phases, and what activating consisted of, in seconds."""

    verb: str
    phases: dict[str, float]
    parts: dict[str, float]

    @property
    def not_counted(self) -> float:
        """Seconds in which users were served by the new release already, and the old one was left to end."""
        return sum(self.parts.get(part, 0.0) for part in NOT_COUNTED)

    def __str__(self) -> str:
        return f"{_listed(self.phases)} (activate: {_listed(self.parts)})"


class Reach:
    """The host from :meth:`start` to :meth:`remove`, and what is measured on it. `folder` is for files."""

    def __init__(self, folder: Path) -> None:
        self.complaints: list[str] = []
        self.said: list[str] = []
        """Where the time of runs went."""
        self._folder = folder
        self._lab = Lab(folder, int(REGISTRY.partition(":")[2]), project=NAME, network=NETWORK)
        self._images = Images(f"{REGISTRY}/{NAME}/backend")

    def start(self) -> None:
        """Boot and provision the host, deploy an environment on it, and start the same by hand."""
        step("boot and provision a host to reach over SSH; this takes a minute or two")
        self._lab.boot()
        (self._folder / "inventory.json").write_text(json.dumps(self._inventory()))
        for playbook in ("provision", "edge"):
            self._play(playbook)
        self._push(FIRST)
        step("deploy there, and start the same by hand")
        self._deploy(FIRST)
        by_hand.write(
            self._lab.machine.path(FOLDER), name=NAME, repository=self._images.repository, publish=f"{BY_HAND_PORT}"
        )
        self._by_hand(FIRST)

    def remove(self) -> None:
        """Remove everything that was made, whatever of it is there."""
        step("remove the host")
        self._lab.remove()
        self._images.remove()

    def rows(self) -> Iterator[Row]:
        """What is measured."""
        yield from self._new_tags()
        yield self._nothing_to_change()
        yield from self._ways_back()

    # --- what is measured ------------------------------------------------------------------------------------------

    def _new_tags(self) -> Iterator[Row]:
        step("over SSH: deploy new tags")
        yield self._timed_tags()
        step("over SSH: deploy new tags while users ask")
        yield from self._asked_tags()

    def _timed_tags(self) -> Row:
        """In turns, since a machine that others share is not as fast in one minute as in the next."""
        seconds, hand = [], []
        for number in range(DEPLOYS):
            kit, by_hand = self._push(f"kit-{number}"), self._push(f"hand-{number}")
            seconds.append(self._counted(self._deploy(kit)))
            hand.append(timed(self._by_hand, by_hand))
        return _beside_floor("ssh: new tag, drain and soak apart", seconds, hand, more=2.0)

    def _asked_tags(self) -> Iterator[Row]:
        """Whoever asks needs the cores that the host and the controller share here, so this time is one to know."""
        seconds, seen, hand = [], [], []
        for number in range(DEPLOYS):
            kit, by_hand = self._push(f"asked-kit-{number}"), self._push(f"asked-hand-{number}")
            deployed, saw = watched(Poller(ENTRY, self._lab.machine.address, HOST), self._deploy, kit)
            seconds.append(self._counted(deployed))
            seen.append(saw)
            hand.append(watched(Poller(BY_HAND_PORT, self._lab.machine.address), timed, self._by_hand, by_hand))
        yield Row("ssh: the same, asked 100 times a second", "s", seconds, [took for took, _ in hand])
        yield from seen_rows("ssh: new tag", seen, [saw for _, saw in hand])

    def _counted(self, deployed: Play) -> float:
        told = self._last("deploy")
        self.said.append(f"new tag in {deployed.seconds:.2f} s: {phases(deployed.output)}")
        self.said.append(f"    the engine's ledger: {told}")
        return deployed.seconds - told.not_counted

    def _nothing_to_change(self) -> Row:
        step("over SSH: deploy again")
        newest, newest_by_hand = f"asked-kit-{DEPLOYS - 1}", f"asked-hand-{DEPLOYS - 1}"
        seconds = []
        for _ in range(TIMES):
            before = self._containers()
            again = self._deploy(newest)
            seconds.append(again.seconds)
            if again.changed:
                self.complaints.append(f"deploy.yml over SSH with nothing to do reports changed={again.changed}")
            if self._containers() != before:
                self.complaints.append("deploy.yml over SSH with nothing to do touched a container")
        self.said.append(f"nothing to change in {seconds[-1]:.2f} s: {phases(again.output)}")
        floor = [timed(self._by_hand, newest_by_hand) for _ in range(TIMES)]
        return Row("ssh: deploy, nothing to change", "s", seconds, floor, bound=2.8)

    def _ways_back(self) -> Iterator[Row]:
        step("over SSH: roll back")
        # Each goes back to what served before, and so the next one to where this one came from.
        played = [self._play("rollback") for _ in range(DEPLOYS)]
        typed = [timed(self._ssh, f"sudo slipway rollback --name {NAME}") for _ in range(DEPLOYS)]
        self.said.append(f"rollback.yml in {played[-1].seconds:.2f} s: {phases(played[-1].output)}")
        runs = [told for told in self._history() if told.verb == "rollback"][-2 * DEPLOYS :]
        self.said += [f"    the engine's ledger: {told}" for told in runs]
        last = DEPLOYS - 1
        floor = [timed(self._by_hand, f"hand-{last - 1 + at % 2}") for at in range(DEPLOYS)]
        counted = [play.seconds - told.not_counted for play, told in zip(played, runs[:DEPLOYS], strict=True)]
        yield Row("ssh: rollback.yml, drain apart", "s", counted, floor, bound=3)
        counted = [seconds - told.not_counted for seconds, told in zip(typed, runs[DEPLOYS:], strict=True)]
        yield Row("ssh: slipway rollback, drain apart", "s", counted, floor, bound=1.8)

    # --- by the kit ------------------------------------------------------------------------------------------------

    def _play(self, playbook: str, **variables: str) -> Play:
        program = str(ROOT / ".venv/bin/ansible-playbook")
        extra = ["--extra-vars", json.dumps(variables)] if variables else []
        command = [program, "-i", str(self._folder / "inventory.json"), *extra, f"playbooks/{playbook}.yml"]
        return Running(command, Path(tempfile.mkdtemp(dir=self._folder, prefix="cp-"))).wait().ok()

    def _deploy(self, tag: str) -> Play:
        return self._play("deploy", backend_tag=tag)

    def _history(self) -> list[Told]:
        said = self._lab.machine.run("slipway", "history", "--name", NAME, "--last", "1000", "--json")
        return msgspec.json.decode(said, type=list[Told])

    def _last(self, verb: str) -> Told:
        return [told for told in self._history() if told.verb == verb][-1]

    def _containers(self) -> str:
        """Every container of the host that runs, and since when."""
        ids = self._lab.machine.docker("ps", "--quiet", "--no-trunc").split()
        return self._lab.machine.docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *ids)

    def _inventory(self) -> dict[str, object]:
        host = {
            "ansible_host": self._lab.machine.address,
            "ansible_user": USER,
            "ansible_ssh_common_args": " ".join(self._lab.ssh_options),
        }
        variables = {
            "slipway_name": NAME,
            "slipway_environment": "bench",
            # As behind TLS inspection: the host shall trust what the controller trusts.
            "docker_ca_bundle": "/etc/ssl/certs/ca-certificates.crt",
            "app_services": "{{ backend_services | combine(bench_change, recursive=true) }}",
            "bench_change": {"backend": {"health": {"interval": 1}}},
            "app_image_tag_strategy": "mutable",
            "backend_image": self._images.repository,
            "backend_publish": PORT,
            "backend_route": {"hosts": [HOST]},
            "backend_jwt_secret": secrets.token_hex(32),
            "release_fingerprint_key": secrets.token_hex(32),
            "release_images_lock_file": str(self._folder / "images.lock.yml"),
            "release_soak_seconds": 0,
            "edge_images_lock_file": str(LOCK),
        }
        return {"all": {"vars": variables, "children": {"app": {"hosts": {MACHINE: host}}}}}

    # --- by hand ---------------------------------------------------------------------------------------------------

    def _by_hand(self, tag: str) -> None:
        verbs = ("pull --quiet", "run --rm -T backend migrate up", "up --detach --wait")
        script = " && ".join([f"cd {FOLDER}", f"export TAG={tag}", *(f"docker compose {verb}" for verb in verbs)])
        self._ssh(f"sudo sh -c {shlex.quote(script)}")

    def _ssh(self, command: str) -> None:
        out("ssh", "-o", "ControlPath=none", *self._lab.ssh_options, f"{USER}@{self._lab.machine.address}", command)

    def _push(self, tag: str) -> str:
        newest = next(reversed(yaml.safe_load(LOCK.read_text())["images"][BACKEND]))
        return self._images.push(tag, f"{BACKEND}:{newest}")


def _beside_floor(what: str, kit: Sequence[float], floor: Sequence[float], *, more: float) -> Row:
    return Row(what, "s", kit, floor, bound=statistics.median(floor) + more)


def _listed(seconds: Mapping[str, float]) -> str:
    return " · ".join(f"{what} {took:.2f} s" for what, took in seconds.items()) or "-"
