"""Backups of two app hosts on a third, as their operator and whoever gets hold of that third host see them."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://app1", "ansible://app2"]

ARCHIVE = "/srv/slipway/semiont-shared/archive"


def test_it_is_backed_up_and_was_restored_from_the_archive(host: Host) -> None:
    own = [one for one in json.loads(host.check_output("slipway backups --json")) if one["host"] == name(host)]
    assert own
    assert own[0]["volumes"] == ["semiont-shared-uploads"]
    assert own[0]["database"] == (name(host) == "app1")
    assert any(one["drilled"] for one in own)


def test_timers_start_backups_and_drills(host: Host) -> None:
    listing = host.check_output("systemctl list-timers --all --no-legend 'slipway-semiont-shared-*'")
    assert "slipway-semiont-shared-backup.timer" in listing
    assert "slipway-semiont-shared-drill.timer" in listing
    assert host.run("systemctl start slipway-semiont-shared-backup.service").rc == 0
    assert host.check_output("slipway history --last 1 --json").count('"backup"') >= 1


@pytest.mark.parametrize("file", ["password", "ssh_key"])
def test_nobody_but_root_reads_what_opens_the_archive(host: Host, file: str) -> None:
    assert host.file(ARCHIVE).mode == 0o700
    assert (host.file(f"{ARCHIVE}/{file}").mode, host.file(f"{ARCHIVE}/{file}").user) == (0o400, "root")


def test_the_password_of_the_archive_shows_nowhere_else(host: Host) -> None:
    password = host.file(f"{ARCHIVE}/password").content_string
    assert len(password) >= 32
    assert password not in host.check_output("cat /srv/slipway/semiont-shared/ledger.jsonl")
    assert password not in host.check_output("docker inspect $(docker ps --quiet)")
    assert password not in host.check_output("journalctl --no-pager --unit 'slipway-semiont-shared-*'")


def name(host: Host) -> str:
    """What the inventory calls it."""
    return host.check_output("hostname")
