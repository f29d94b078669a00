"""Example inventories as an operator has them: copied, with their secrets generated, and read by Ansible itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

KIT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent
EXAMPLES = sorted(path.parent.name for path in KIT.glob("examples/*/hosts.yml"))


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the kit's own environment in the checkout."""
    return subprocess.run(
        [str(TOOLS / tool), *arguments],
        cwd=KIT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(KIT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What it said, on one line."""
    return " ".join(f"{done.stdout} {done.stderr}".split())


def copy(name: str, folder: Path) -> Path:
    """Copy the example `name` into a folder and generate its secrets, as docs say; the answer is the inventory."""
    inventory = folder / f"{name}-production"
    shutil.copytree(KIT / "examples" / name, inventory)
    done = run("ansible-playbook", "-i", str(inventory), "playbooks/secrets.yml")
    assert done.returncode == 0, said(done)
    return inventory


def first_play(folder: Path) -> str:
    """The first play of playbooks/site.yml, which needs no host, as a playbook of its own."""
    play = yaml.safe_load((KIT / "playbooks/site.yml").read_text())[0]
    assert play["name"] == "Check the inventory before anything is touched"
    playbook = folder / "contract.yml"
    playbook.write_text(yaml.safe_dump([play]))
    return str(playbook)


def variables(inventory: Path, *names: str, **filled_in: str) -> dict[str, Any]:
    """What variables are for the inventory's host, with all templates filled in; `filled_in` is what somebody typed."""
    out = inventory.with_name(f"{inventory.name}.json")
    asked = "{{ {" + ", ".join(f"'{name}': {name}" for name in names) + "} | to_json }}"
    task = {"content": asked, "dest": str(out), "mode": "0600"}
    extra = ["-e", json.dumps(filled_in)] if filled_in else []
    module = ["-c", "local", "-m", "ansible.builtin.copy", "-a", json.dumps(task)]
    done = run("ansible", "-i", str(inventory), "app[0]", *module, *extra)
    assert done.returncode == 0, said(done)
    found: dict[str, Any] = json.loads(out.read_text())
    return found
