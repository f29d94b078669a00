"""Debian 12 without an init system, after all that went wrong: one engine, and nothing else of a newer Debian."""

from __future__ import annotations

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://lab"]


def test_it_is_debian_12_without_an_init_system(host: Host) -> None:
    assert host.check_output("cut -d . -f 1 /etc/debian_version") == "12"
    assert not host.file("/run/systemd/system").exists


def test_there_is_one_engine(host: Host) -> None:
    assert host.check_output("pgrep --exact --count dockerd") == "1"


@pytest.mark.parametrize("package", ["docker.io", "docker-cli", "docker-compose", "docker-buildx"])
def test_dockers_packages_come_from_the_next_suite(host: Host, package: str) -> None:
    installed = host.check_output(f"apt-cache policy {package} | grep --after-context 1 '^ \\*\\*\\*'")
    assert " 990" in installed


def test_nothing_else_does(host: Host) -> None:
    """The next upgrade would take nothing from there either."""
    assert "trixie" not in host.check_output("apt-get --simulate dist-upgrade").lower()
