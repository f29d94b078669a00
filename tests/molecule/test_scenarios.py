"""Drives the molecule scenarios, so that one pytest run tells whether all of the kit works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inventory_copies import EXAMPLES

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
STEP = re.compile(r"^INFO\s+\[(?P<scenario>\w+) > (?P<step>\w+)\] Executing$", re.MULTILINE)
RECAP = re.compile(r"^(?P<host>\S+)\s+: ok=\d+\s+changed=(?P<changed>\d+)\s+unreachable=0\s+failed=0\s", re.MULTILINE)


def run_scenario(name: str) -> list[tuple[str, str]]:
    """Run one scenario from destroy to destroy; answers its steps in order, each with what it printed."""
    environment = {
        **os.environ,
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        # Plain text, one line per line: that is what is read here.
        "NO_COLOR": "1",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    environment.pop("FORCE_COLOR", None)
    finished = subprocess.run(
        [PROGRAMS / "molecule", "test", "--scenario-name", name, "--destroy", "always"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        # Some three minutes are usual. Without an end, a machine that hangs would keep all the other tests waiting.
        timeout=1200,
    )
    if finished.returncode != 0:
        pytest.fail(f"molecule test -s {name} ended with {finished.returncode}:\n{finished.stdout}", pytrace=False)
    marks = list(STEP.finditer(finished.stdout))
    ends = [mark.start() for mark in marks[1:]] + [len(finished.stdout)]
    return [(mark["step"], finished.stdout[mark.end() : end]) for mark, end in zip(marks, ends, strict=True)]


def changes(output: str) -> dict[str, int]:
    """How many tasks changed something, per host, summed over the plays' recap."""
    return {found["host"]: int(found["changed"]) for found in RECAP.finditer(output)}


def changed(output: str) -> set[str]:
    """The hosts on which something was changed."""
    return {host for host, count in changes(output).items() if count}


def has_each_step_with_nothing_left_to_do(steps: list[tuple[str, str]], wanted: list[str], hosts: set[str]) -> None:
    """Whether the scenario took the `wanted` steps, changed each of `hosts` once, and no host ever again."""
    taken = [(name, output) for name, output in steps if name in wanted]
    assert [name for name, _ in taken] == wanted
    check_before, check_after = (output for name, output in taken if name == "check")
    outputs = dict(taken)
    assert changed(check_before) >= hosts, "--check on a host that is new tells what would be done"
    assert changed(outputs["converge"]) >= hosts
    assert not changed(check_after), "--check on a provisioned host has nothing to do"
    assert not changed(outputs["idempotence"])
    assert re.search(r"=+ \d+ passed in ", outputs["verify"]), "every test on the hosts ran and passed"


@pytest.mark.molecule
def test_a_bare_debian_13_becomes_a_serving_host() -> None:
    """Its side effects: looked at, stopped and started before it is verified; removed without a trace after."""
    wanted = ["destroy", "create", "check", "converge", "check", "idempotence", "side_effect", "verify"]
    wanted += ["side_effect", "destroy"]
    has_each_step_with_nothing_left_to_do(run_scenario("default"), wanted, {"app1"})


@pytest.mark.long
@pytest.mark.molecule
def test_a_bare_debian_12_without_an_init_system_becomes_a_serving_host_that_survives_what_goes_wrong() -> None:
    """Its side effects: a killed engine, wrong configurations, no root, another system, an engine of somebody else."""
    wanted = ["destroy", "create", "check", "converge", "check", "idempotence", "side_effect", "verify", "destroy"]
    has_each_step_with_nothing_left_to_do(run_scenario("debian12"), wanted, {"debian12-noinit"})


@pytest.mark.long
@pytest.mark.molecule
def test_two_hosts_share_a_database_that_the_kit_runs() -> None:
    """Its side effects: a deploy, a rotated password, a restart, a password and a version that are refused; a backup, a
    drill, a restore, and the way back to a second."""
    wanted = ["destroy", "create", "prepare", "check", "converge", "check", "idempotence", "side_effect", "verify"]
    wanted += ["destroy"]
    has_each_step_with_nothing_left_to_do(run_scenario("database"), wanted, {"app1", "app2", "database1"})


@pytest.mark.long
@pytest.mark.molecule
def test_each_example_lives_by_its_own_inventory_two_on_a_host() -> None:
    """Its side effects: an upgrade with a migration, two that fail, and the way back across the migration."""
    wanted = ["destroy", "create", "prepare", "check", "converge", "check", "idempotence", "side_effect", "verify"]
    wanted += ["destroy"]
    has_each_step_with_nothing_left_to_do(run_scenario("examples"), wanted, set(EXAMPLES))


@pytest.mark.molecule
def test_three_hosts_serve_behind_a_tier_with_a_private_registry_and_a_database_that_is_given() -> None:
    """Its side effects: a deploy in batches under requests, one to a single host, a host taken out and back."""
    wanted = ["destroy", "create", "prepare", "check", "converge", "check", "idempotence", "side_effect", "verify"]
    wanted += ["destroy"]
    steps = run_scenario("fleet")
    has_each_step_with_nothing_left_to_do(steps, wanted, {"app1", "app2", "app3", "edge1"})
    assert "database1" not in changes(dict(steps)["converge"]), "what is given is left alone"
