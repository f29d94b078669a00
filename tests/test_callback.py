"""What an operator sees of a run, in a pipe and on a terminal: real runs, whose engines answer what the test says."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.terminal import Terminal

KIT = Path(__file__).parents[1]
ANSIBLE = Path(sys.executable).parent / "ansible-playbook"
ONE, TWO = "0123456789abcdef", "fedcba9876543210"
ENGINE = """
import time

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        answer = dict(task_vars["answers"].get(self._task.args.get("state", "status"), {"ok": True, "changed": True}))
        time.sleep(answer.get("pause", 0))
        if "refusal" in answer:
            raise AnsibleActionFail(answer["refusal"], result={"exit": 2, "details": answer["details"]})
        return answer
"""
DEPLOY = """
- name: contract | Check the contract
  ansible.builtin.assert: {that: true, quiet: true}
- name: stage | Bring the release to the host
  slipway_release: {state: staged}
- name: stage | Render what is secret
  ansible.builtin.set_fact: {hidden: hunter2-hunter2}
  no_log: true
- name: activate | Make the release serve
  slipway_release: {state: active}
  ignore_errors: "{{ data | default(false) }}"
- name: fleet | Say how it went
  ansible.builtin.debug:
    msg: "shop is deployed on 3 hosts.\\nHOST  RESULT\\napp1  deployed"
  run_once: true
- name: fleet | Say what is left to do
  ansible.builtin.fail:
    msg: "shop is not deployed.\\nHOST  RESULT\\napp1  failed"
  run_once: true
  when: data | default(false) | bool
"""
REFUSED = {"refusal": "It is sick. Look at its logs.", "details": "  the last\nof its logs"}
SILENT = {"unreachable": True, "msg": "ssh: connect to host app2 port 22: Connection refused"}


def standing(**change: object) -> dict[str, Any]:
    service = {
        "state": "running healthy",
        "tag": "1.4.2",
        "image": "r/api@sha256:0123456789abcdef",
        "url": "http://127.0.0.1:4000",
        "since": "",
    }
    status: dict[str, Any] = {
        "name": "shop",
        "environment": "production",
        "release": ONE,
        "schema": "0002",
        "complaint": "",
        "services": {"api": service},
        "differences": [],
        "lease": None,
        "maintenance": None,
        "revoked": {},
    }
    return {"ok": True, "changed": False, "status": {**status, **change}}


class Kit:
    """Hosts whose engine answers what it is told to, and a role named as that which deploys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for action in ("release", "status", "history"):
            (folder / "action").mkdir(exist_ok=True)
            (folder / f"action/slipway_{action}.py").write_text(ENGINE)
        (folder / "roles/release/tasks").mkdir(parents=True)
        (folder / "roles/release/tasks/main.yml").write_text(DEPLOY)
        play = {"name": "Deploy the application", "hosts": "app", "gather_facts": False, "roles": ["release"]}
        (folder / "deploy.yml").write_text(yaml.safe_dump([play]))

    def command(self, playbook: Path, hosts: Mapping[str, Mapping[str, Any]], *arguments: str) -> list[str | Path]:
        shared = {"ansible_connection": "local", "ansible_become": False, "slipway_name": "shop"}
        members = {host: {"answers": answers} for host, answers in hosts.items()}
        inventory = self.folder / "hosts.yml"
        inventory.write_text(json.dumps({"all": {"vars": shared, "children": {"app": {"hosts": members}}}}))
        return [ANSIBLE, "-i", inventory, playbook, *arguments]

    def environment(self, playbook: Path) -> dict[str, str]:
        roles = KIT / "roles" if playbook.is_relative_to(KIT / "playbooks") else self.folder / "roles"
        return {
            **os.environ,
            "ANSIBLE_CONFIG": str(KIT / "ansible.cfg"),
            "ANSIBLE_ACTION_PLUGINS": str(self.folder / "action"),
            "ANSIBLE_ROLES_PATH": str(roles),
            "ANSIBLE_NOCOLOR": "1",
            "TERM": "xterm",
        }

    def deploy(self, hosts: Mapping[str, Mapping[str, Any]], *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(self.folder / "deploy.yml", hosts, *arguments)

    def look(self, *answers: Mapping[str, Any], arguments: tuple[str, ...] = (), playbook: str = "status") -> Any:
        hosts = {f"app{number}": {"status": answer} for number, answer in enumerate(answers, 1)}
        return self._run(KIT / f"playbooks/{playbook}.yml", hosts, *arguments)

    def _run(
        self, playbook: Path, hosts: Mapping[str, Mapping[str, Any]], *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(playbook, hosts, *arguments),
            env=self.environment(playbook),
            cwd=KIT,
            capture_output=True,
            text=True,
            check=False,
        )

    def watch(self, hosts: Mapping[str, Mapping[str, Any]], *arguments: str) -> tuple[Terminal, str]:
        """Deploy on a terminal: what stands there at the end, and all that was written to it."""
        playbook = self.folder / "deploy.yml"
        terminal = Terminal(columns=120, rows=30)
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", terminal.rows, terminal.columns, 0, 0))
        with subprocess.Popen(
            self.command(playbook, hosts, *arguments),
            env=self.environment(playbook),
            cwd=KIT,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ):
            os.close(theirs)
            written = b"".join(iter(lambda: _read(ours), b""))
        os.close(ours)
        terminal.write(written.decode())
        return terminal, written.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        # That is how Linux says that nobody has the other end open any more.
        return b""


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)


def without_times(text: str) -> list[str]:
    """Lines with every duration as N, without the recap and blank ones."""
    told = text.partition("PLAY RECAP")[0]
    return [re.sub(r" +\d+\.\d s", " N s", line) for line in told.splitlines() if line]


# --- in a pipe -----------------------------------------------------------------------------------------------------


def test_in_a_pipe_there_is_a_line_for_each_thing_done(kit: Kit) -> None:
    done = kit.deploy({"app1": {}, "app2": {}})
    assert done.returncode == 0, done.stderr
    assert sorted(without_times(done.stdout)[1:5]) == [
        "  changed N s  app1  activate: Make the release serve",
        "  changed N s  app1  stage: Bring the release to the host",
        "  changed N s  app2  activate: Make the release serve",
        "  changed N s  app2  stage: Bring the release to the host",
    ]
    assert "\x1b[" not in done.stdout
    assert len(re.findall(r"^app\d +: ok=\d+ +changed=2 ", done.stdout, re.MULTILINE)) == 2


def test_what_is_said_of_all_hosts_is_a_block_of_its_own(kit: Kit) -> None:
    told = kit.deploy({"app1": {}, "app2": {}}).stdout
    assert "\n\nshop is deployed on 3 hosts.\nHOST  RESULT\napp1  deployed\n" in told
    assert "fleet" not in told


@pytest.mark.parametrize("arguments", [(), ("-e", "data=true")], ids=["that ends it", "as data"])
def test_a_failure_is_a_sentence_with_its_details_aligned(kit: Kit, arguments: tuple[str, ...]) -> None:
    told = kit.deploy({"app1": {"active": REFUSED}, "app2": {}}, *arguments).stdout
    line, _, rest = told.partition("  app1  activate: Make the release serve\n")
    assert line.splitlines()[-1].startswith("  FAILED ")
    assert rest.startswith("\n    It is sick. Look at its logs.\n\n      the last\n    of its logs\n")


def test_what_fails_for_all_hosts_is_not_said_of_the_first_of_them(kit: Kit) -> None:
    terminal, _ = kit.watch({"app1": {}, "app2": {"active": REFUSED}}, "-e", "data=true")
    lines = without_times("\n".join(terminal.lines))
    at = lines.index("  FAILED N s  all hosts  fleet: Say what is left to do")
    assert lines[at + 1 : at + 4] == ["    shop is not deployed.", "    HOST  RESULT", "    app1  failed"]
    assert lines[-2:] == ["  app1  ✓ N s   ✓ N s   ✓ N s", "✗ app2  ✓ N s   ✓ N s   ✗ N s"]


def test_a_host_that_is_lost_is_named_so(kit: Kit) -> None:
    told = kit.deploy({"app1": {"active": SILENT}, "app2": {}}).stdout
    assert "  UNREACHABLE" in told
    assert "\n    ssh: connect to host app2 port 22: Connection refused\n" in told


def test_with_v_it_is_ansibles_own_display(kit: Kit) -> None:
    done = kit.deploy({"app1": {"active": REFUSED}}, "-v")
    assert "TASK [release : activate | Make the release serve]" in done.stdout
    assert "FAILED! => " in done.stdout
    assert "  FAILED " not in done.stdout


def test_after_a_deploy_of_several_hosts_a_line_tells_what_they_serve(kit: Kit) -> None:
    told = kit.deploy({"app1": {"active": standing()}, "app2": {"active": standing()}}).stdout
    assert f"\nshop: all 2 hosts serve {ONE}.\n  next" in told


def test_after_a_deploy_of_one_host_it_is_told_where_it_answers(kit: Kit) -> None:
    told = kit.deploy({"here": {"active": standing()}}).stdout
    assert "\nshop on here is healthy.\n  release  0123456789abcdef   schema 0002\n" in told
    assert "  api      http://127.0.0.1:4000   1.4.2   sha256:0123456789ab\n" in told


@pytest.mark.parametrize("arguments", [(), ("-v",), ("-vvv",)], ids=["plain", "-v", "-vvv"])
def test_what_is_secret_is_never_shown(kit: Kit, arguments: tuple[str, ...]) -> None:
    done = kit.deploy({"app1": {}, "app2": {}}, *arguments)
    assert "hunter2" not in done.stdout + done.stderr


# --- on a terminal ---------------------------------------------------------------------------------------------------


def test_a_terminal_ends_with_a_row_for_each_host(kit: Kit) -> None:
    terminal, written = kit.watch({"app1": {}, "app2": {"active": REFUSED}, "app3": {}})
    assert without_times("\n".join(terminal.lines)) == [
        "Deploy the application",
        "  FAILED N s  app2  activate: Make the release serve",
        "    It is sick. Look at its logs.",
        "      the last",
        "    of its logs",
        "shop is deployed on 3 hosts.",
        "HOST  RESULT",
        "app1  deployed",
        "  HOST  check     stage     activate",
        "  app1  ✓ N s   ✓ N s   ✓ N s",
        "✗ app2  ✓ N s   ✓ N s   ✗ N s",
        "  app3  ✓ N s   ✓ N s   ✓ N s",
    ]
    assert sum(line.startswith("app") and "changed=" in line for line in terminal.lines) == 3
    assert "hunter2" not in written


def test_on_the_way_it_shows_what_is_being_done_and_what_is_still_to_come(kit: Kit) -> None:
    slow = {"active": {"ok": True, "changed": True, "pause": 1}}
    _, written = kit.watch({"app1": slow, "app2": slow})
    assert "  … 0 s  activate: Make the release serve on " in written
    assert re.search(r"HOST +check +stage +migrate +activate +verify", written)


def test_one_host_on_a_terminal_keeps_its_lines_and_leaves_no_rows(kit: Kit) -> None:
    terminal, _ = kit.watch({"here": {"active": standing()}})
    lines = without_times("\n".join(terminal.lines))
    assert lines[:2] == ["Deploy the application", "  changed N s  here  stage: Bring the release to the host"]
    assert not [line for line in lines if line.startswith("  HOST")]
    assert "shop on here is healthy." in lines


def test_many_hosts_are_redrawn_in_place_and_all_of_them_stand_at_the_end(kit: Kit) -> None:
    terminal, _ = kit.watch({f"web{number:02}": {} for number in range(1, 41)}, "--forks", "20")
    headers = [line for line in terminal.lines if line.startswith("  HOST")]
    assert len(headers) == 1, "a picture of before was left behind"
    assert sum(bool(re.match(r"  web\d\d  ✓", line)) for line in terminal.lines) == 40


# --- how it stands, over all hosts -----------------------------------------------------------------------------------


def test_status_of_several_hosts_ends_with_one_table(kit: Kit) -> None:
    done = kit.look(standing(), standing(), standing())
    assert done.returncode == 0, done.stderr
    assert without_times(done.stdout) == [
        "Look how the application stands",
        f"shop: all 3 hosts serve {ONE}.",
        "HOST  RELEASE           SCHEMA  API                    VERDICT",
        f"app1  {ONE}  0002    running healthy 1.4.2  healthy",
        f"app2  {ONE}  0002    running healthy 1.4.2  healthy",
        f"app3  {ONE}  0002    running healthy 1.4.2  healthy",
    ]


def test_status_has_a_row_for_every_host_whatever_became_of_it(kit: Kit) -> None:
    refused = {"refusal": "There is no engine there. Run playbooks/provision.yml for this host.", "details": ""}
    done = kit.look(standing(complaint="the container of api is exited"), SILENT, refused, standing(release=TWO))
    assert done.returncode == 2
    table = done.stdout.partition("\nHOST ")[2].partition("\n\n")[0].splitlines()[1:]
    assert [line.split()[0] for line in table] == ["app1", "app2", "app3", "app4"]
    assert table[1].split()[-1] == "unreachable"
    assert "is healthy.\n" not in kit.look(standing(), SILENT).stdout, "one host that answers is not all of them"
    assert f"PARTIAL: 1 of 4 hosts serves {ONE}, app4 serves {TWO}, app2 is unreachable" in done.stdout
    assert "shop is not healthy: the container of api is exited." in done.stdout
    assert len(re.findall(r"^app\d +: .* failed=1 ", done.stdout, re.MULTILINE)) == 4


def test_status_is_shown_where_no_host_answers(kit: Kit) -> None:
    done = kit.look(SILENT, SILENT)
    assert done.returncode == 2
    assert "shop: app1 and app2 are unreachable." in done.stdout


def test_a_split_fleet_fails_the_play(kit: Kit) -> None:
    done = kit.look(standing(), standing(), standing(release=TWO))
    assert done.returncode == 2
    assert f"shop: PARTIAL: 2 of 3 hosts serve {ONE}, app3 serves {TWO}." in done.stdout
    assert "Deploy without --limit, so that all hosts serve one release." in done.stdout


def test_hosts_that_were_not_asked_are_named_and_no_failure(kit: Kit) -> None:
    done = kit.look(standing(), standing(), arguments=("--limit", "app1"))
    assert done.returncode == 0
    assert "shop on app1 is healthy." in done.stdout


def test_the_document_is_all_that_is_on_stdout(kit: Kit) -> None:
    done = kit.look(standing(), SILENT, arguments=("-e", "status_json=true"))
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert [(one["host"], one["verdict"]) for one in document["hosts"]] == [
        ("app1", "healthy"),
        ("app2", "unreachable"),
    ]
    assert "PLAY RECAP" in done.stderr


def test_history_of_several_hosts_is_one_table(kit: Kit) -> None:
    run = {
        "at": "2025-01-01T12:00:00.000+00:00",
        "run": "run-1",
        "by": "alice",
        "verb": "deploy",
        "release": ONE,
        "result": "good",
        "phases": {},
        "parts": {},
        "schema_before": "",
        "schema_after": "0002",
        "unavailable_ms": 0,
        "reason": "",
    }
    answer = {"ok": True, "changed": False, "runs": [run], "text": "as the host lays it out"}
    done = kit.look(answer, answer, playbook="history")
    assert done.returncode == 0, done.stdout
    assert without_times(done.stdout)[1:] == [
        "AT (UTC)             RUN    BY     WHAT    RELEASE           SCHEMA  MISSED  RESULT         REASON",
        f"2025-01-01T12:00:00  run-1  alice  deploy  {ONE}  0002    0 ms    good on all 2  -",
    ]
    assert "as the host lays it out" in kit.look(answer, playbook="history").stdout
    partly = kit.look(answer, SILENT, playbook="history", arguments=("-e", "history_json=true"))
    assert partly.returncode == 2
    assert json.loads(partly.stdout)["complete"] is False
