"""The machine itself, as far as the inventory has the kit keep it."""

from __future__ import annotations

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://app", "ansible://edge"]


@pytest.mark.kept("ssh")
def test_nobody_logs_in_with_a_password(host: Host) -> None:
    settings = host.check_output("/usr/sbin/sshd -T -C user=root,host=localhost,addr=127.0.0.1").splitlines()
    wanted = "yes" if host.ansible.get_variables().get("host_ssh_password_login", False) else "no"
    assert f"passwordauthentication {wanted}" in settings


@pytest.mark.kept("firewall")
def test_the_firewall_is_loaded_and_comes_back(host: Host) -> None:
    assert host.service("slipway-firewall").is_enabled
    table = host.check_output("/usr/sbin/nft --stateless list table inet slipway")
    assert table.strip() == host.file("/run/slipway-firewall/loaded").content_string.strip()
    assert "hook input priority filter - 10; policy drop;" in table


@pytest.mark.kept("upgrades")
def test_security_updates_come_by_themselves(host: Host) -> None:
    assert host.service("apt-daily-upgrade.timer").is_running
    assert 'Unattended-Upgrade "1"' in host.check_output("apt-config dump APT::Periodic::Unattended-Upgrade")


@pytest.mark.kept("user", "ssh", "firewall")
def test_no_change_waits_to_be_confirmed(host: Host) -> None:
    assert host.run("ls -A /var/lib/slipway/undo").stdout == ""
