"""The Docker engine of each host: that it is fit for what the kit does with it, whoever has installed it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://app", "ansible://edge"]

PACKAGES = ["docker.io", "docker-cli", "docker-compose", "docker-buildx", "containerd", "runc"]
"""Debian's, and those of the vendor: a host has some of them."""
PACKAGES += ["docker-ce", "docker-ce-cli", "docker-compose-plugin", "docker-buildx-plugin", "containerd.io"]


@pytest.fixture(scope="module")
def info(host: Host) -> dict[str, Any]:
    """What the engine says about itself."""
    answer: dict[str, Any] = json.loads(host.check_output("docker info --format '{{json .}}'"))
    return answer


@pytest.fixture
def _of_the_kit(host: Host) -> None:
    if not host.file("/etc/slipway/docker.json").exists:
        pytest.skip("the engine was there before the kit, which leaves its settings alone")


def test_the_engine_runs_and_comes_back(host: Host) -> None:
    """Systemd starts it at boot; where there is none, the kit's own program has it running, with a log."""
    if host.file("/run/systemd/system").exists:
        docker = host.service("docker")
        assert docker.is_running
        assert docker.is_enabled
    else:
        assert host.check_output("slipway-dockerd status") == "running"
        assert host.file("/var/log/dockerd.log").size > 0


@pytest.mark.parametrize("plugin", ["compose", "buildx"])
def test_the_plugins_are_there(host: Host, plugin: str) -> None:
    assert host.run(f"docker {plugin} version").rc == 0


@pytest.mark.usefixtures("_of_the_kit")
def test_containers_outlive_a_restart_of_the_engine(info: dict[str, Any]) -> None:
    assert info["LiveRestoreEnabled"] is True


@pytest.mark.usefixtures("_of_the_kit")
def test_logs_of_containers_rotate(host: Host, info: dict[str, Any]) -> None:
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert info["LoggingDriver"] == config["log-driver"]
    # The driver `local` rotates by itself.
    assert config["log-driver"] == "local" or config["log-opts"].keys() >= {"max-file", "max-size"}


@pytest.mark.usefixtures("_of_the_kit")
def test_the_engine_stays_as_it_is_when_the_host_upgrades_itself(host: Host) -> None:
    blacklist = host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")
    query = "dpkg-query --show --showformat '${db:Status-Abbrev} ${Package}\\n'"
    installed = host.run(f"{query} {' '.join(PACKAGES)}").stdout
    packages = [line.split()[1] for line in installed.splitlines() if line.startswith("ii ")]
    assert packages
    held = [package.replace(".", r"\.") for package in packages]
    assert not [package for package in held if f'"{package}$"' not in blacklist]


@pytest.mark.usefixtures("_of_the_kit")
def test_nothing_waits_to_be_taken_over(host: Host) -> None:
    assert not host.file("/etc/slipway/docker.pending").exists
