"""The engine of a Debian 12 without an init system, after all that went wrong."""

from __future__ import annotations

import pytest
from testinfra.host import Host


def test_one_engine_runs_detached_with_a_log_of_its_own(host: Host) -> None:
    assert host.check_output("pgrep --exact --count dockerd") == "1"
    assert host.check_output("slipway-dockerd status") == "running"
    assert host.file("/var/log/dockerd.log").size > 0


@pytest.mark.parametrize("package", ["docker.io", "docker-cli", "docker-compose", "docker-buildx"])
def test_dockers_packages_come_from_the_next_suite(host: Host, package: str) -> None:
    installed = host.check_output(f"apt-cache policy {package} | grep --after-context 1 '^ \\*\\*\\*'")
    assert " 990" in installed


def test_nothing_else_does(host: Host) -> None:
    """The next upgrade would take nothing from there either."""
    planned = host.check_output("apt-get --simulate dist-upgrade")
    assert "trixie" not in planned.lower()
    assert "13" not in host.check_output("cat /etc/debian_version").split(".")[0]


@pytest.mark.parametrize("plugin", ["compose", "buildx"])
def test_the_plugins_are_there(host: Host, plugin: str) -> None:
    assert host.run(f"docker {plugin} version").rc == 0


def test_nothing_waits_to_be_taken_over(host: Host) -> None:
    assert not host.file("/etc/slipway/docker.pending").exists
