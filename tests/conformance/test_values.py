"""Values arrive byte for byte from an inventory through Ansible, Compose and Docker to a program, whatever they are."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tests.conformance.conftest import PREFIX, TOOLS
from tests.engine.conftest import docker
from tests.inventory_copies import run, said

pytestmark = [pytest.mark.docker, pytest.mark.long]

NASTY = [
    *("it's", 'say "so"', "'", '"', "a\nb", "a\r\nb\n", "\n", "\t x ", " leading", "trailing ", "", "\\n \\ \\\\"),
    *("$HOME", "${VAR}", "$$", "$${VAR}", "${VAR:-x}", "5$", "#no comment", "a #b", "`id`", "$(id)", "%(x)s", "%40"),
    *("a: b", "- a", "!tag", "&a", "*b", "yes", "null", "~", "1.0", "0x10", "012", "1e3", "2026-11-25", "{", "[", "|"),
    *("ü\u2028\u2029\x85\ufeff😀", "\x1b[0m\x07\x7f", "\u200b\u00a0", "a\x0bb\x0c", "x" * 5000, "é" * 300 + "\n" * 3),
]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
VALUES = st.lists(TEXT.filter(lambda text: not any(mark in text for mark in ("{{", "{%", "{#"))), min_size=60)
"""Two braces are a template to Ansible, which is what they are for."""
TELL = """
import json, os, subprocess
script = "set -a; . /app/shop.env; exec python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'"
sourced = json.loads(subprocess.run(["sh", "-c", script], env={}, capture_output=True, check=True).stdout)
text = open("/app/note.txt", newline="", encoding="utf-8").read()
files = {name: oct(os.stat(f"/app/{name}").st_mode & 0o777) for name in ("shop.env", "shop.json", "note.txt")}
print(json.dumps({"env": dict(os.environ), "json": json.load(open("/app/shop.json")), "file": sourced, "text": text,
                  "modes": files}))
"""


def contract(values: list[str]) -> dict[str, Any]:
    named = {f"V{number}": value for number, value in enumerate(values)}
    file = {"gid": 1000, "mode": "0440"}
    return {
        "app": {
            "image": TOOLS,
            "tag": "latest",
            "user": "1000:1000",
            "entrypoint": ["python3", "-c", TELL],
            "env": named,
            "secret_env": {f"SECRET_{name}": value for name, value in named.items()},
            "config_files": [
                {**file, "path": "/app/shop.json", "format": "json", "content": named},
                {**file, "path": "/app/shop.env", "format": "env", "content": named},
                {**file, "path": "/app/note.txt", "format": "text", "content": "\n".join(values)},
            ],
        }
    }


@pytest.fixture(scope="module")
def playbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Renders a release as the role does, and writes down what a host would be sent."""
    path = tmp_path_factory.mktemp("render") / "render.yml"
    tasks = [
        {"ansible.builtin.import_role": {"name": "release", "tasks_from": "render.yml"}},
        {"ansible.builtin.copy": {"content": "{{ __release | to_json }}", "dest": "{{ out }}", "mode": "0600"}},
    ]
    path.write_text(json.dumps([{"hosts": "app", "gather_facts": False, "connection": "local", "tasks": tasks}]))
    return path


def arrived(values: list[str], playbook: Path, folder: Path) -> dict[str, Any]:
    """What a program says that it was given."""
    inventory = folder / "inventory"
    (inventory / "group_vars/all").mkdir(parents=True, exist_ok=True)
    (inventory / "hosts.yml").write_text(json.dumps({"all": {"children": {"app": {"hosts": {"here": {}}}}}}))
    known = {"slipway_name": f"{PREFIX}values", "slipway_environment": "test", "release_fingerprint_key": "k" * 32}
    (inventory / "group_vars/all/app.json").write_text(json.dumps({**known, "app_services": contract(values)}))
    # By its id, as a registry's digest would be.
    image = docker("image", "inspect", "--format", "{{.Id}}", TOOLS)
    extra = {"out": str(folder / "release.json"), "__release_digests": {"app": image}}
    done = run("ansible-playbook", "-i", str(inventory), str(playbook), "-e", json.dumps(extra))
    assert done.returncode == 0, said(done)
    release = json.loads((folder / "release.json").read_text())
    for file in release["release"]["files"]:
        path = folder / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(release["contents"][file["path"]].replace(f"{TOOLS}@{image}", image), newline="")
        path.chmod(int(file["mode"], 8))
        os.chown(path, file["uid"], file["gid"])
    (folder / ".env").write_text("SLIPWAY_NETWORK=10.207.250\n")
    compose = ["docker", "compose", "--file", str(folder / "compose.yml"), "--project-directory", str(folder)]
    try:
        told = subprocess.run(
            [*compose, "run", "--rm", "-T", "app"], capture_output=True, check=False, env={"PATH": os.environ["PATH"]}
        )
    finally:
        subprocess.run([*compose, "down"], capture_output=True, check=True)
    assert told.returncode == 0, told.stderr.decode(errors="replace")[-2000:]
    found: dict[str, Any] = json.loads(told.stdout)
    return found


@settings(max_examples=2, phases=[Phase.explicit, Phase.generate], derandomize=True)
@example(values=NASTY)
@given(values=VALUES)
def test_every_value_arrives_byte_for_byte(
    tools: str, playbook: Path, tmp_path_factory: pytest.TempPathFactory, values: list[str]
) -> None:
    found = arrived(values, playbook, tmp_path_factory.mktemp("values"))
    wanted = {f"V{number}": value for number, value in enumerate(values)}
    told = {
        name: {key: part.get(key) for key in wanted} for name, part in found.items() if name in ("env", "json", "file")
    }
    assert told["env"] == wanted
    assert {key: found["env"].get(f"SECRET_{key}") for key in wanted} == wanted
    assert told["json"] == wanted
    assert told["file"] == wanted
    assert found["text"] == "\n".join(values)
    assert set(found["modes"].values()) == {"0o440"}
