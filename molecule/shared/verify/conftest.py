"""What holds for every environment that the kit has set up, whatever runs there: `make verify`, and each scenario.

The inventory is the one in ANSIBLE_INVENTORY; a test's `testinfra_hosts` name groups of it. Nothing is changed on a
host.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner, itergroup

RUNNER = AnsibleRunner.get_runner(None)
CONNECTIONS = tempfile.TemporaryDirectory(prefix="slipway-")


def pytest_configure(config: pytest.Config) -> None:
    """Read the inventory once for all, and say in its own sentence why that cannot be done."""
    # molecule names another one, which it has made itself of the scenario's platforms.
    config.option.ansible_inventory = None
    read = subprocess.run(["ansible-inventory", "--list"], capture_output=True, text=True, check=False)
    if read.returncode:
        raise pytest.UsageError(read.stderr.strip().removeprefix("[ERROR]: "))
    RUNNER.inventory = json.loads(read.stdout)
    # One connection to a host for all tests; without a path for it, SSH would open another one for each command.
    for variables in RUNNER.inventory["_meta"]["hostvars"].values():
        given = variables.get("ansible_ssh_extra_args", "")
        variables["ansible_ssh_extra_args"] = f"{given} -o ControlPath={CONNECTIONS.name}/%C".strip()
    if not list(itergroup(RUNNER.inventory, "app")):
        raise pytest.UsageError("The inventory has no host in its group app.")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what looks at the edge tier where there is none."""
    return True if collection_path.name == "test_tier.py" and not tier() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what looks at parts of a host that its inventory does not have the kit keep."""
    items[:] = [item for item in items if (mark := item.get_closest_marker("kept")) is None or _kept(item, mark.args)]


def _kept(item: pytest.Item, parts: Sequence[str]) -> bool:
    """Whether the host of a test has one of these parts kept."""
    assert isinstance(item, pytest.Function)
    host = item.callspec.params["_testinfra_host"].backend.host
    return not set(parts).isdisjoint(RUNNER.inventory["_meta"]["hostvars"].get(host, {}).get("host_parts", []))


def tier() -> list[str]:
    """The hosts that balance: those of the group edge that are no app hosts."""
    return sorted({*itergroup(RUNNER.inventory, "edge")} - {*itergroup(RUNNER.inventory, "app")})


@pytest.fixture(scope="module", autouse=True)
def _as_root(host: Host) -> None:
    """Look as root: what the kit lays down is for root alone to read."""
    try:
        if host.check_output("id --user") != "0":
            host.backend.sudo = True
    except RuntimeError:
        pytest.fail(f"{host.backend.host} does not answer. See that it is up and that SSH leads there.", pytrace=False)


@pytest.fixture(scope="module")
def name(host: Host) -> str:
    """The environment."""
    return str(host.ansible.get_variables()["slipway_name"])


@pytest.fixture(scope="module")
def status(host: Host, name: str) -> dict[str, Any]:
    """How it stands, as the host itself says: on an app host what serves, on one of the edge tier whom it balances."""
    told = host.run(f"slipway status --name {name} --json")
    answer: dict[str, Any] = json.loads(told.stdout) if told.stdout else {"what": told.stderr}
    if "what" in answer:
        pytest.fail(f"{host.backend.host} cannot say how {name} stands. {answer['what']}", pytrace=False)
    return answer
