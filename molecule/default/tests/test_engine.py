"""The Docker engine of a machine that was provisioned from bare."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture(scope="module")
def info(host: Host) -> dict[str, Any]:
    """What the engine says about itself."""
    answer: dict[str, Any] = json.loads(host.check_output("docker info --format '{{json .}}'"))
    return answer


def test_the_engine_runs_and_comes_back_at_boot(host: Host) -> None:
    docker = host.service("docker")
    assert docker.is_running
    assert docker.is_enabled


def test_containers_outlive_a_restart_of_the_engine(info: dict[str, Any]) -> None:
    assert info["LiveRestoreEnabled"] is True


def test_logs_of_containers_rotate(host: Host, info: dict[str, Any]) -> None:
    assert info["LoggingDriver"] == "json-file"
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert config["log-opts"] == {"max-file": "3", "max-size": "10m"}


@pytest.mark.parametrize("plugin", ["compose", "buildx"])
def test_the_plugins_are_there(host: Host, plugin: str) -> None:
    assert host.run(f"docker {plugin} version").rc == 0


def test_the_machine_trusts_the_controllers_certificates(host: Host) -> None:
    added = host.file("/usr/local/share/ca-certificates/slipway.crt")
    assert added.mode == 0o644
    # Trusting is appending to the bundle that every program reads.
    last = added.content_string.rstrip().splitlines()[-2]
    assert last in host.file("/etc/ssl/certs/ca-certificates.crt").content_string


def test_the_engine_stays_as_it_is_when_the_machine_upgrades_itself(host: Host) -> None:
    blacklist = host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")
    for package in ("docker\\.io$", "docker-cli$", "docker-compose$", "docker-buildx$", "containerd$", "runc$"):
        assert f'"{package}"' in blacklist


def test_nothing_waits_to_be_taken_over(host: Host) -> None:
    assert not host.file("/etc/slipway/docker.pending").exists


def test_a_container_runs_with_its_limits(host: Host) -> None:
    """An image of one static program: whether cgroups, overlayfs and networking inside the machine really work."""
    host.check_output("mkdir /tmp/probe && cp /usr/bin/docker-init /tmp/probe/")
    try:
        host.check_output("tar --create --directory /tmp/probe . | docker import - slipway-probe:1")
        answer = host.run("docker run --rm --memory 32m --cpus 0.5 slipway-probe:1 /docker-init --version")
        assert answer.rc == 0, answer.stderr
        assert "tini" in answer.stdout
        assert "WARNING" not in answer.stderr
    finally:
        host.run("docker image rm slipway-probe:1; rm -r /tmp/probe")
