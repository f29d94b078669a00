"""What was bare: that the machine itself is as the inventory says, and that nothing went wrong on the way."""

from __future__ import annotations

import json

from testinfra.host import Host

testinfra_hosts = ["ansible://lab"]
NAME = "semiont-molecule"


def test_logs_of_containers_rotate_as_they_do_by_default(host: Host) -> None:
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert config["log-driver"] == "json-file"
    assert config["log-opts"] == {"max-file": "3", "max-size": "10m"}


def test_the_machine_trusts_the_controllers_certificates(host: Host) -> None:
    added = host.file("/usr/local/share/ca-certificates/slipway.crt")
    assert added.mode == 0o644
    # Trusting is appending to the bundle that every program reads.
    last = added.content_string.rstrip().splitlines()[-2]
    assert last in host.file("/etc/ssl/certs/ca-certificates.crt").content_string


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


def test_the_backend_never_had_to_be_started_again(host: Host) -> None:
    container = host.check_output(f"docker ps --quiet --filter label=org.slipway.name={NAME}")
    assert host.check_output(f"docker inspect --format '{{{{.RestartCount}}}}' {container}") == "0"


def test_the_backend_has_both_of_its_files_as_its_group(host: Host) -> None:
    found = host.check_output(f"find /srv/slipway/{NAME}/current/config -type f -printf '%f %m %g\\n'").splitlines()
    assert sorted(line.split() for line in found) == [["molecule.json", "440", "1001"], ["semiont.json", "440", "1001"]]


def test_the_backend_has_a_secret_that_is_one(host: Host) -> None:
    """So that there was something to look for where no secret may show."""
    path = host.check_output(f"find /srv/slipway/{NAME}/current/config -name molecule.json")
    assert len(json.loads(host.file(path).content_string)["auth"]["jwtSecret"]) >= 32
