"""No playbook prints a secret, however much it is asked to say and wherever in the fleet it is at work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.environment import NAME
from tests.faults.fleet import Fleet
from tests.faults.lab import Lab

pytestmark = pytest.mark.faults

KIT = Path(__file__).parents[2]
MARKS = {
    what: f"never-to-be-seen-{what}-0123456789abcdef"
    for what in ("older", "newer", "variable", "key", "registry", "sudo", "archive")
}
SECRET = "app:/app/config/app.json#auth.jwtSecret"


class Shop(Fleet):
    """The fleet with secrets in every place that an inventory has for one."""

    secret = MARKS["older"]

    def __init__(self, lab: Lab, repository: str, folder: Path) -> None:
        super().__init__(lab, repository)
        told = json.loads(self.inventory.read_text())
        told["all"]["vars"] |= {
            "release_fingerprint_key": MARKS["key"],
            "ansible_become_password": MARKS["sudo"],
            "docker_registries": [{"host": "registry.invalid:5000", "username": "shop", "password": MARKS["registry"]}],
            "app_secrets": {"shop_token": "hex32"},
            # A machine in a container does not come back by itself; what is done before and after is what counts.
            "edge_reboot_command": "true",
            "edge_reboot_boot_time_command": "date +%s.%N",
        }
        self.inventory = folder / "shop" / "hosts.json"
        self.inventory.parent.mkdir()
        self.inventory.write_text(json.dumps(told))
        lock = yaml.safe_load((KIT / "inventories/local/images.lock.yml").read_text())
        lock["images"][repository] = {"1.0": self.digest("1.0")}
        (folder / "staging").mkdir()
        (folder / "staging" / "images.lock.yml").write_text(yaml.safe_dump(lock))

    def services(self, version: str, **change: Any) -> dict[str, Any]:
        """The contract with its secrets, in a file and in a variable."""
        given = {"config": {"auth": {"jwtSecret": self.secret}}, "secret_env": {"API_TOKEN": MARKS["variable"]}}
        return super().services(version, **{**given, **change})


@pytest.fixture
def shop(fleet: Fleet, tmp_path: Path) -> Iterator[Shop]:
    """The same machines with another inventory, to which nothing of the fleet's own environment is left."""
    fleet.destroy()
    shop = Shop(fleet.lab, fleet.repository, tmp_path)
    yield shop
    shop.leave()
    # The last playbook has removed the engine and the edges.
    fleet.play("site").ok()
    fleet.destroy()


STEPS: list[tuple[str, dict[str, Any]]] = [
    ("secrets", {}),
    ("promote", {"promote_from": "staging"}),
    ("site", {}),
    ("host", {"host_hostname": "shop"}),
    ("provision", {}),
    ("images", {}),
    ("edge", {}),
    ("front", {}),
    ("deploy", {}),
    ("revoke", {"secret": [SECRET], "reason": "it leaked"}),
    ("rollback", {}),
    ("status", {}),
    ("history", {}),
    ("archive", {"backup_target": "/var/backups/shop", "backup_password": MARKS["archive"]}),
    ("archive", {}),
    ("maintenance", {"maintenance": "on", "reason": "to look"}),
    ("maintenance", {"maintenance": "off"}),
    ("drain", {"host": "app2", "drain": "on", "reason": "disk"}),
    ("drain", {"host": "app2", "drain": "off"}),
    ("reboot", {}),
    ("stop", {}),
    ("destroy", {"destroy_confirm": NAME}),
]
"""Each playbook with what it is given, in an order in which each of them has something to do."""


def of_a_database() -> set[str]:
    """The playbooks of the scenario `database`, which looks for secrets in what each of them says."""
    play, *_ = yaml.safe_load((KIT / "molecule/database/side_effect.yml").read_text())
    assert play["vars"]["play_secrets"]
    told = [task["vars"]["play"] for task in play["tasks"] if "play" in task.get("vars", {})]
    return {Path(playbook).stem for playbook in told}


def test_no_playbook_prints_a_secret(shop: Shop) -> None:
    tried = {playbook for playbook, _ in STEPS} | of_a_database()
    assert tried == {path.stem for path in KIT.glob("playbooks/*.yml")}
    for playbook, variables in STEPS:
        if playbook == "deploy":
            shop.secret = MARKS["newer"]
        play = shop.start(playbook, options=["-vvv"], release_serial="100%", **variables).wait()
        for what, mark in MARKS.items():
            assert mark not in play.output, f"{playbook}.yml prints the {what}:\n{around(play.output, mark)}"
        play.ok()


def around(text: str, mark: str) -> str:
    """The lines with the mark."""
    return "\n".join(line[:400] for line in text.splitlines() if mark in line)
