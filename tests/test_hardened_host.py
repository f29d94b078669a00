"""The role host on real hosts, a Debian 13 and a Debian 12: what it keeps, and that it locks nobody out."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.lab import Lab
from lab.machines import choose

KIT = Path(__file__).parents[1]
PROJECT = "slipway-testhost"
HOSTS = ["app1", "app3"]
PARTS = ["user", "ssh", "firewall", "upgrades", "time", "logs", "hostname", "swap", "sysctl"]
CHANGED = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", re.MULTILINE)
ASK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1)"

pytestmark = [pytest.mark.docker, pytest.mark.long]


@dataclass(frozen=True)
class Hosts:
    """The lab, and the playbook run on it."""

    lab: Lab
    inventory: Path

    def command(self, *more: str, **variables: Any) -> list[str]:
        """The call that keeps them as the inventory says, with these variables instead of its own."""
        playbook = str(Path(sys.executable).with_name("ansible-playbook"))
        given = ["-i", str(self.inventory), "-i", str(self.lab.inventory), "-e", json.dumps(variables)]
        return [playbook, *given, *more, "playbooks/host.yml"]

    def play(self, *more: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run it."""
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
        return subprocess.run(
            self.command(*more, **variables),
            cwd=KIT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    def keep(self, **variables: Any) -> dict[str, int]:
        """Run it where it has to succeed: host -> how much was changed."""
        return changes(self.play(**variables))

    def ssh(self, host: str, command: str) -> subprocess.CompletedProcess[str]:
        """Log in anew and run a command; the exit code is 255 when nobody is let in."""
        call = ["ssh", *self.lab.ssh_options, "-o", "ConnectTimeout=3", host, command]
        return subprocess.run(call, capture_output=True, text=True, check=False, timeout=60)

    def root(self, host: str, command: str) -> str:
        """What a command of root's prints, by no SSH, and also when it fails."""
        call = ["docker", "exec", self.lab.container(host), "sh", "-c", command]
        return subprocess.run(call, capture_output=True, text=True, check=False, timeout=120).stdout

    def reaches(self, source: str, target: str, port: int) -> bool:
        """Whether a program on one host gets a connection to a port of another."""
        address = next(one.host(self.lab.network).address for one in self.lab.machines() if one.name == target)
        call = ["docker", "exec", self.lab.container(source), "python3", "-c", ASK, address, str(port)]
        return subprocess.run(call, capture_output=True, check=False, timeout=30).returncode == 0


def changes(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    assert done.returncode == 0, done.stdout + done.stderr
    return {host: int(count) for host, count in CHANGED.findall(done.stdout)}


def said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(f"{done.stdout} {done.stderr}".split())


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Two hosts with Docker as the kit installs it, of which nothing has been asked yet."""
    folder = tmp_path_factory.mktemp("labs")
    lab = Lab(PROJECT, folder / "lab")
    lab.down()
    try:
        lab.up(choose(HOSTS)[0], registry=False)
        key = (lab.folder / "key.pub").read_text().strip()
        inventory = folder / "parts.yml"
        inventory.write_text(yaml.safe_dump({"all": {"vars": {"host_parts": PARTS, "host_user_keys": [key]}}}))
        yield Hosts(lab, inventory)
    finally:
        lab.down()
    assert lab.left() == []


@pytest.fixture(scope="module")
def kept(hosts: Hosts) -> Hosts:
    """The same, kept by the kit."""
    before = hosts.play("--check", "--diff")
    assert all(changes(before).values()), "--check on a host that is new tells what would be done"
    for host in HOSTS:
        traces = "ls /etc/slipway/firewall.nft /etc/ssh/sshd_config.d/00-slipway.conf /home/deploy 2>/dev/null"
        assert hosts.root(host, traces) == "", "--check changes nothing"
    first = hosts.play()
    assert all(changes(first).values())
    assert "This host is a container (docker)" in said(first)
    assert "time, sysctl, swap and hostname skipped." in said(first)
    return hosts


def test_a_second_run_and_a_check_have_nothing_to_do(kept: Hosts) -> None:
    assert kept.keep() == dict.fromkeys(HOSTS, 0)
    assert changes(kept.play("--check", "--diff")) == dict.fromkeys(HOSTS, 0)


@pytest.mark.parametrize("host", HOSTS)
def test_the_user_logs_in_with_its_key_and_administers_the_host(host: str, kept: Hosts) -> None:
    assert kept.ssh(f"deploy@{host}", "id -un; sudo -n id -un").stdout.split() == ["deploy", "root"]
    settings = kept.root(host, "sshd -T -C user=deploy,host=localhost,addr=127.0.0.1").splitlines()
    assert {"permitrootlogin no", "passwordauthentication no", "kbdinteractiveauthentication no"} <= set(settings)


@pytest.mark.parametrize("host", HOSTS)
def test_security_updates_alone_come_by_themselves_and_docker_stays(host: str, kept: Hosts) -> None:
    told = kept.root(host, "unattended-upgrade --dry-run --debug 2>&1")
    origins = re.findall(r"Allowed origins are: (.*)", told)
    assert origins
    assert "label=Debian-Security" in origins[0]
    assert "label=Debian," not in origins[0] + ","
    [blacklist] = re.findall(r"Initial blacklist: (.*)", told)
    assert {"docker", "containerd", "runc"} <= set(blacklist.split())
    assert 'Automatic-Reboot "false";' in kept.root(host, "apt-config dump Unattended-Upgrade::Automatic-Reboot")
    assert kept.root(host, "systemctl is-active apt-daily-upgrade.timer").strip() == "active"


@pytest.mark.parametrize("host", HOSTS)
def test_the_journal_is_limited(host: str, kept: Hosts) -> None:
    assert "SystemMaxUse=1G" in kept.root(host, "systemd-analyze cat-config systemd/journald.conf")
    assert kept.root(host, "ls /var/log/journal").strip()


# --- the firewall -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(kept: Hosts) -> Hosts:
    """A container that publishes port 8080 on each host, and a program of the host's own that listens on 8081."""
    # No more than the links by which programs find what lies in /usr, which is the host's own.
    image = "tar -C / -c bin lib lib64 | docker import - shop"
    run = "docker run --detach --restart always --volume /usr:/usr:ro --publish 8080:80 --name shop shop"
    for host in HOSTS:
        started = kept.root(host, f"{image} && {run} /usr/bin/python3 -m http.server 80 2>&1")
        assert re.fullmatch(r"[0-9a-f]{64}", (started.split() or [""])[-1]), started
        kept.root(host, "systemd-run --quiet python3 -m http.server 8081")
        for port in (8080, 8081):
            within(20, lambda host=host, port=port: listens(kept, host, port))
    return kept


def listens(hosts: Hosts, host: str, port: int) -> bool:
    """Whether somebody answers there, asked on the host itself."""
    return hosts.root(host, f"python3 -c '{ASK}' 127.0.0.1 {port} && echo yes").strip() == "yes"


def within(seconds: float, what: Any) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


def docker_rules(hosts: Hosts, host: str) -> str:
    """Docker's own rules, without counters."""
    return re.sub(r"^#.*\n|\[\d+:\d+\]", "", hosts.root(host, "iptables-save"), flags=re.MULTILINE)


def test_what_docker_publishes_is_let_in_by_the_inventory_alone(published: Hosts) -> None:
    rules = {host: docker_rules(published, host) for host in HOSTS}
    assert all("8080" in rule for rule in rules.values()), "Docker has published it"
    for port in (8080, 8081):
        assert not published.reaches("app1", "app3", port)
        assert not published.reaches("app3", "app1", port)
    allow = [{"port": "8080-8081", "sources": ["app1"], "comment": "the shop"}]
    assert published.keep(host_firewall_allow=allow) == dict.fromkeys(HOSTS, 1)
    for port in (8080, 8081):
        assert published.reaches("app1", "app3", port), "who is named is let in"
        assert not published.reaches("app3", "app1", port), "and nobody else is"
    assert {host: docker_rules(published, host) for host in HOSTS} == rules, "Docker's rules are not touched"
    assert published.keep(host_firewall_allow=allow) == dict.fromkeys(HOSTS, 0)


def test_containers_reach_the_world(published: Hosts) -> None:
    app3 = next(one.host(published.lab.network).address for one in published.lab.machines() if one.name == "app3")
    probe = f"docker exec shop /usr/bin/python3 -c '{ASK}' {app3} 22 && echo yes"
    assert published.root("app1", probe).strip() == "yes"


def test_it_holds_when_docker_is_restarted(published: Hosts) -> None:
    published.root("app3", "systemctl restart docker")
    within(30, lambda: listens(published, "app3", 8080))
    assert published.reaches("app1", "app3", 8080)
    assert not published.reaches("app3", "app1", 8080)


def test_it_holds_when_the_host_is_restarted(published: Hosts) -> None:
    restart(published, "app3")
    within(60, lambda: listens(published, "app3", 8080))
    assert published.reaches("app1", "app3", 8080)
    assert not published.reaches("app1", "app3", 9000)
    assert published.root("app3", "systemctl is-active slipway-firewall").strip() == "active"


def restart(hosts: Hosts, host: str) -> None:
    """Take its power and give it back, and wait until it lets in again who may log in."""
    for verb in ("kill", "start"):
        subprocess.run(["docker", verb, hosts.lab.container(host)], check=True, capture_output=True)
    within(60, lambda: hosts.ssh(f"deploy@{host}", "true").returncode == 0)


def test_a_table_that_somebody_has_removed_or_changed_comes_back(published: Hosts) -> None:
    allow = [{"port": "8080-8081", "sources": ["app1"], "comment": "the shop"}]
    published.root("app1", "nft add rule inet slipway allowed tcp dport 8081 accept")
    assert published.reaches("app3", "app1", 8081)
    published.root("app3", "nft delete table inet slipway")
    assert published.keep(host_firewall_allow=allow) == dict.fromkeys(HOSTS, 1)
    assert not published.reaches("app3", "app1", 8081)
    assert published.keep(host_firewall_allow=allow) == dict.fromkeys(HOSTS, 0)


def test_what_is_no_longer_listed_is_no_longer_let_in(published: Hosts) -> None:
    published.keep()
    assert not published.reaches("app1", "app3", 8080)


# --- nobody is locked out ---------------------------------------------------------------------------------------------


DROP_IN = "/etc/ssh/sshd_config.d/00-slipway.conf"


@pytest.mark.parametrize("host", HOSTS)
def test_ssh_that_would_let_nobody_in_is_taken_back(host: str, kept: Hosts) -> None:
    before = kept.root(host, f"cat {DROP_IN}")
    done = kept.play("--limit", host, host_ssh_allow_users=["somebody"])
    assert done.returncode != 0
    assert "With this change deploy could not log in and become root any more. It was taken back." in said(done)
    assert "host_ssh_allow_users" in said(done)
    assert kept.root(host, f"cat {DROP_IN}") == before
    assert kept.ssh(f"deploy@{host}", "sudo -n true").returncode == 0
    assert kept.root(host, "ls /var/lib/slipway/undo") == ""


def test_keys_of_which_the_controller_has_none_leave_the_login_as_it_is(kept: Hosts) -> None:
    stranger = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA somebody"
    variables = {"host_user": "other", "host_user_keys": [stranger], "host_ssh_allow_users": ["other"]}
    done = kept.play("--limit", "app1", **variables)
    assert done.returncode != 0
    assert "With this change other could not log in and become root any more. It was taken back." in said(done)
    assert "See that host_user_keys has a key that the controller uses" in said(done)
    assert kept.ssh("deploy@app1", "sudo -n true").returncode == 0, "who administered the host still does"
    assert kept.root("app1", "cat /etc/ssh/authorized_keys/other") == ""


def test_settings_that_sshd_does_not_know_change_nothing(kept: Hosts) -> None:
    before = kept.root("app1", f"cat {DROP_IN}")
    done = kept.play("--limit", "app1", host_ssh_options={"PermitRotLogin": "no"})
    assert "sshd does not accept the settings of this inventory. Correct the host_ssh_* settings." in said(done)
    assert kept.root("app1", f"cat {DROP_IN}") == before


def test_a_firewall_that_lets_nobody_in_is_taken_back(kept: Hosts) -> None:
    done = kept.play("--limit", "app3", host_firewall_ssh_sources=["192.0.2.1"])
    assert done.returncode != 0
    assert "It was taken back. See that host_firewall_ssh_sources" in said(done)
    assert kept.ssh("deploy@app3", "true").returncode == 0
    assert kept.keep() == dict.fromkeys(HOSTS, 0)


def test_a_host_that_is_left_alone_with_such_a_change_takes_it_back_by_itself(kept: Hosts) -> None:
    with gone_controller(kept, "app1", host_firewall_ssh_sources=["192.0.2.1"], host_undo_seconds=9):
        assert kept.ssh("deploy@app1", "true").returncode == 255, "nobody gets in"
        within(20, lambda: kept.ssh("deploy@app1", "true").returncode == 0)
    assert "192.0.2.1" not in kept.root("app1", "cat /etc/slipway/firewall.nft")
    assert changes(kept.play("--limit", "app1")) == {"app1": 0}


def test_a_host_that_is_restarted_with_such_a_change_comes_back_without_it(kept: Hosts) -> None:
    with gone_controller(kept, "app1", host_ssh_allow_users=["somebody"], host_undo_seconds=600):
        assert kept.ssh("deploy@app1", "true").returncode == 255, "nobody gets in"
        restart(kept, "app1")
    assert "somebody" not in kept.root("app1", f"cat {DROP_IN}")
    assert changes(kept.play("--limit", "app1")) == {"app1": 0}


class gone_controller:  # noqa: N801 - it reads as what it is about
    """A controller that is killed, with its connections, as soon as a host has such a change."""

    def __init__(self, hosts: Hosts, host: str, **variables: Any) -> None:
        self._hosts, self._host = hosts, host
        self._call = hosts.command("--limit", host, **variables)

    def __enter__(self) -> None:
        with subprocess.Popen(
            self._call, cwd=KIT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as playing:
            taken_over = "grep -qE 'somebody|192.0.2.1' /etc/slipway/firewall.nft /etc/ssh/sshd_config.d/* && echo yes"
            within(30, lambda: self._hosts.root(self._host, taken_over).strip() == "yes")
            time.sleep(0.7)
            os.killpg(playing.pid, signal.SIGKILL)
            for process in self._hosts.lab._ssh.processes():
                os.kill(process, signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do: the host has done it."""
