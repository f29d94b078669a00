"""What is wrong with one host of a fleet is one clear sentence, and the other hosts are left alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.ssh import USER
from tests.faults.environment import FOLDER, NAME, Play
from tests.faults.fleet import Fleet
from tests.faults.lab import Machine

pytestmark = pytest.mark.faults

ENGINE = "/opt/slipway/venv"
UNREACHABLE = "Nobody can log in to this host. See that it is up and that ssh gets in, or leave it out with --limit"

Refused = Callable[..., Play]


def standing(machine: Machine) -> tuple[str, str, str]:
    """All containers of a machine and since when they run, the files of the environment, and what happened to it."""
    containers = machine.docker("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.CreatedAt}} {{.State}}")
    files = machine.run("find", FOLDER, "-printf", "%p %s %T@\n")
    return containers, files, machine.path(f"{FOLDER}/ledger.jsonl").read_text()


@pytest.fixture
def refused(fleet: Fleet) -> Iterator[Refused]:
    """Runs a playbook that one host has to keep from touching any other, and from taking users' requests away."""
    others = {machine.name: machine for machine in fleet.lab.group("app") if machine is not fleet.app2}
    before = {name: standing(machine) for name, machine in others.items()}

    def run(playbook: str, sentence: str, *, version: str = "", **variables: Any) -> Play:
        # With its own contract a release that serves would be as declared, and nothing would be left to do.
        contract = fleet.services(version or fleet.other()[1])
        play = fleet.play(playbook, app_services=contract, **variables)
        said = " ".join(play.output.split())
        assert sentence in said, play.output
        assert said.count(sentence) == 1, "of the one host alone"
        assert "Traceback" not in said
        assert play.code in (2, 4), play.output
        return play

    with fleet.load() as load:
        yield run
    load.seen.undisturbed()
    assert {name: standing(machine) for name, machine in others.items()} == before
    assert fleet.is_whole()


@contextlib.contextmanager
def changed(machine: Machine, do: str, undo: str) -> Iterator[None]:
    """Have a shell command done on a machine meanwhile, and undone."""
    machine.run("sh", "-c", do)
    try:
        yield
    finally:
        machine.run("sh", "-c", undo)


@contextlib.contextmanager
def edited(machine: Machine, module: str, script: str) -> Iterator[None]:
    """Have a module of the engine be as `sed` makes it: as it was in another version."""
    found = machine.run("sh", "-c", f"ls {ENGINE}/lib/python3.*/site-packages/slipway/{module}.py").strip()
    with changed(machine, f"cp -p {found} /root/kept && sed -i '{script}' {found}", f"mv /root/kept {found}"):
        yield


@pytest.mark.parametrize("playbook", ["deploy", "site"])
def test_an_unreachable_host(playbook: str, fleet: Fleet, refused: Refused) -> None:
    with fleet.app2.cut_off():
        play = refused(playbook, UNREACHABLE)
    assert play.code == 4
    assert "Connection refused" in play.output


@pytest.mark.parametrize("playbook", ["deploy", "site"])
def test_a_wrong_sudo_password(playbook: str, fleet: Fleet, refused: Refused) -> None:
    with changed(
        fleet.app2,
        f"echo '{USER}:right' | chpasswd && sed -i 's/NOPASSWD: //' /etc/sudoers.d/{USER}",
        f"echo '{USER} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{USER}",
    ):
        refused(
            playbook,
            "The kit cannot look at this host as root: sudo does not take the password.",
            ansible_become_password="wrong",
        )
        refused(playbook, "The kit cannot look at this host as root: sudo wants a password.")


@pytest.mark.parametrize(
    ("playbook", "sentence"),
    [
        ("site", "There is no Python on this host, which Ansible needs. Install it there: apt-get install -y python3."),
        ("deploy", f"The engine at {ENGINE}/bin/slipway does not run: its Python is gone. Install it"),
    ],
)
def test_no_python_on_the_host(playbook: str, sentence: str, fleet: Fleet, refused: Refused) -> None:
    away = "mv /usr/bin/python3 /usr/bin/kept-python3"
    with changed(fleet.app2, away, "mv /usr/bin/kept-python3 /usr/bin/python3"):
        refused(playbook, sentence)


def test_200_mb_of_free_disk(fleet: Fleet, refused: Refused) -> None:
    with changed(fleet.app2, "mount -t tmpfs -o size=200m tmpfs /srv/slipway", "umount /srv/slipway"):
        refused(
            "deploy",
            "The disk is nearly full: 200 MB are free on the file system of /srv/slipway, 500 MB are needed.",
            release_min_free_mb=500,
        )


@pytest.mark.parametrize(("days", "how"), [(1, "1 day ahead of"), (-1, "1 day behind")])
def test_a_clock_that_is_off_by_a_day(days: int, how: str, fleet: Fleet, refused: Refused) -> None:
    # The engine's clock alone: the machine has the kernel, and so the clock, of this one.
    # Such a file is read once for each name of its folder, of which there may be two.
    off = days * 86400
    wrong = f'import time; vars(time).setdefault("right", time.time); time.time = lambda t=time: t.right() + {off}'
    found = fleet.app2.run("sh", "-c", f"ls -d {ENGINE}/lib/python3.*/site-packages").strip()
    with changed(fleet.app2, f"echo '{wrong}' > {found}/clock.pth", f"rm {found}/clock.pth"):
        refused("deploy", f"The clock of this host is {how} the controller's. Set the one that is wrong")


def test_an_engine_of_an_older_protocol(fleet: Fleet, refused: Refused) -> None:
    with edited(fleet.app2, "protocol", "s/^PROTOCOL = 1/PROTOCOL = 0/"):
        refused("deploy", "The engine speaks protocol 0, this kit speaks 1. Run playbooks/provision.yml for this host.")


@pytest.mark.parametrize(
    ("module", "script"),
    [("preflight", "s/^    now: float/    then: float/"), ("cli", 's/^    "preflight": /    "look": /')],
    ids=["a request", "a verb"],
)
def test_an_engine_that_does_not_know(module: str, script: str, fleet: Fleet, refused: Refused) -> None:
    with edited(fleet.app2, module, script):
        refused(
            "deploy",
            "The engine of this host is not that of this kit: it does not understand `preflight`. "
            "Run playbooks/provision.yml for this host.",
        )


def test_another_inventory_with_the_same_name_on_one_of_its_hosts(fleet: Fleet, refused: Refused) -> None:
    manifest = fleet.app2.path(f"{FOLDER}/current/manifest.json")
    ours = manifest.read_bytes()
    manifest.write_text(json.dumps({**json.loads(ours), "owner": "1" * 64}))
    try:
        refused("deploy", f"There is an environment {NAME} on this host already, which belongs to another inventory")
    finally:
        manifest.write_bytes(ours)


def test_another_inventory_is_refused_and_may_take_over_on_purpose(fleet: Fleet) -> None:
    old, new = fleet.other()
    others = {"slipway_environment": "other", "release_serial": "100%"}
    fleet.deploy(new, variables=others).failed(
        f"There is an environment {NAME} on this host already, which belongs to the inventory of faults, and this one "
        "is that of other.",
        "-e release_take_over=true",
    )
    fleet.serves(old)
    fleet.deploy(new, variables={**others, "release_take_over": True}).ok()
    fleet.serves(new)
    assert fleet.deploy(new, variables=others).ok().changed == 0
    fleet.deploy(old).failed("which belongs to the inventory of other, and this one is that of faults.")
    fleet.serves(new)
    fleet.deploy(old, variables={"release_take_over": True, "release_serial": "100%"}).ok()
    fleet.goes_on(old)
