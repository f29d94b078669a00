"""What the role host decides and writes, without a host."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest
import yaml

from plugins.filter import host as decide

ROLE = Path(__file__).parents[1] / "roles" / "host"
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
VARS: dict[str, Any] = yaml.safe_load((ROLE / "vars/main.yml").read_text())
SPEC: dict[str, Any] = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]
PARTS: list[str] = SPEC["options"]["host_parts"]["choices"]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAvOPIU9tQ4RBaiDqJfsxGcAVTbz anna@example"
FILE = {"content": "x\n", "mode": "0644", "owner": "root", "group": "root", "mtime": 100}
UP = {"active": True, "enabled": True, "since": 200}


def render(template: str, **variables: Any) -> str:
    """Lay out one of the role's templates the way Ansible does; one that is undefined is an error."""
    # Files of a host are no HTML.
    lookup = jinja2.Environment(  # noqa: S701
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    lookup.filters["to_json"] = json.dumps
    lookup.filters["ternary"] = lambda value, yes, no: yes if value else no
    return lookup.get_template(template).render(**DEFAULTS, **{**VARS, **variables})


def a_host(**other: Any) -> dict[str, Any]:
    """A Debian 13 on which all is as `wanted` says, as host_info describes it."""
    units = ("slipway-undo", "slipway-firewall", "systemd-journald", "systemd-timesyncd")
    return {
        "distribution": "debian",
        "version": "13",
        "name": "Debian GNU/Linux 13 (trixie)",
        "systemd": True,
        "container": "",
        "hostname": "app1",
        "files": {f"/etc/{part}": FILE for part in [*PARTS, "undo"]},
        "packages": ["sudo", "nftables", "unattended-upgrades", "systemd-timesyncd"],
        "units": {
            **{f"{unit}.service": UP for unit in (*units, "chrony")},
            "apt-daily.timer": UP,
            "apt-daily-upgrade.timer": UP,
        },
        "sysctl": {"vm.swappiness": "10"},
        "swaps": {"/swapfile": 2**30 - 4096},
        "user": {"home": "/home/deploy", "shell": "/bin/bash", "groups": [], "keys": decide.host_authorized("", [KEY])},
        "sshd": {"installed": True, "effective": ["port 22", "permitrootlogin no"]},
        "firewall_loaded": True,
        "unconfirmed": [],
        "over_ssh": True,
        "login": "operator",
        **other,
    }


def wanted(**other: Any) -> dict[str, Any]:
    """What the inventory wants: every part."""
    return {
        "parts": PARTS,
        "files": {part: [{"path": f"/etc/{part}", "content": "x\n"}] for part in [*PARTS, "undo"]},
        "login": "deploy",
        "root_login": False,
        "user": "deploy",
        "user_keys": [KEY],
        "user_groups": [],
        "user_shell": "/bin/bash",
        "sshd": {"effective": ["PermitRootLogin no"]},
        "firewall": {"rules": [], "problem": ""},
        "journal_file": "/etc/logs",
        "hostname": "app1",
        "swap_file": "/swapfile",
        "swap_size": "1G",
        "sysctl": {"vm.swappiness": "10"},
        "sysctl_asked": ["vm.swappiness"],
        **other,
    }


def due(host: dict[str, Any], **other: Any) -> list[str]:
    plan = decide.host_plan(host, wanted(**other))
    assert plan["problem"] == ""
    found: list[str] = plan["due"]
    return found


def without(unit: str) -> dict[str, Any]:
    """Its units, of which one does not come back after a restart."""
    return {**a_host()["units"], unit: {"active": False, "enabled": False, "since": 0}}


def test_where_all_is_as_it_should_be_nothing_is_due() -> None:
    plan = decide.host_plan(a_host(), wanted())
    assert plan == {"problem": "", "skipped": [], "packages": [], "due": []}


def test_nothing_is_asked_of_a_host_unless_the_inventory_lists_it() -> None:
    assert DEFAULTS["host_parts"] == []
    assert decide.host_plan(a_host(files={}, units={}, user={}), wanted(parts=[]))["due"] == []


def test_the_machine_that_ansible_runs_on_is_left_as_it_is() -> None:
    plan = decide.host_plan(a_host(over_ssh=False, files={}, distribution="ubuntu"), wanted())
    assert (plan["due"], plan["packages"], plan["problem"]) == ([], [], "")
    assert "without SSH" in plan["skipped"][0]


def test_on_a_new_host_every_part_is_due_and_brings_its_package() -> None:
    nobody = {"home": "", "shell": "", "groups": [], "keys": ""}
    new = a_host(files={}, units={}, packages=[], user=nobody, swaps={}, sysctl={}, firewall_loaded=False, hostname="x")
    plan = decide.host_plan(new, wanted(sysctl_asked=[]))
    assert sorted(plan["due"]) == sorted([*PARTS, "undo"])
    assert plan["packages"] == ["nftables", "sudo", "systemd-timesyncd", "unattended-upgrades"]


DRIFT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a file that is gone": ({"files": {**a_host()["files"], "/etc/ssh": None}}, ["ssh"]),
    "a file of another mode": ({"files": {**a_host()["files"], "/etc/logs": {**FILE, "mode": "0666"}}}, ["logs"]),
    "a file of somebody else": ({"files": {**a_host()["files"], "/etc/user": {**FILE, "owner": "anna"}}}, ["user"]),
    "another file that decides for sshd": (
        {"sshd": {"installed": True, "effective": ["permitrootlogin yes"]}},
        ["ssh"],
    ),
    "a table that is gone": ({"firewall_loaded": False}, ["firewall"]),
    "a firewall that would not come back": ({"units": without("slipway-firewall.service")}, ["firewall"]),
    "nothing to take changes back at boot": ({"units": without("slipway-undo.service")}, ["undo"]),
    "upgrades that were switched off": ({"units": without("apt-daily-upgrade.timer")}, ["upgrades"]),
    "a clock that nobody keeps": ({"units": without("systemd-timesyncd.service")}, ["time"]),
    "a package that is gone": ({"packages": ["sudo", "nftables", "systemd-timesyncd"]}, ["upgrades"]),
    "a journal that has not read its file": (
        {"files": {**a_host()["files"], "/etc/logs": {**FILE, "mtime": 201}}},
        ["logs"],
    ),
    "a change that was cut off": ({"unconfirmed": ["ssh"]}, ["ssh"]),
    "another name": ({"hostname": "debian"}, ["hostname"]),
    "no swap": ({"swaps": {}}, ["swap"]),
    "swap of another size": ({"swaps": {"/swapfile": 2**29}}, ["swap"]),
    "swap of somebody else": ({"swaps": {"/dev/sda2": 2**29}}, []),
    "another kernel setting": ({"sysctl": {"vm.swappiness": "60"}}, ["sysctl"]),
    "another shell": ({"user": {**a_host()["user"], "shell": "/bin/sh"}}, ["user"]),
    "keys that were taken out": ({"user": {**a_host()["user"], "keys": ""}}, ["user"]),
}


@pytest.mark.parametrize(("other", "parts"), DRIFT.values(), ids=DRIFT)
def test_what_is_not_as_it_should_be_is_due_and_nothing_else(other: dict[str, Any], parts: list[str]) -> None:
    files = {path: file for path, file in other.get("files", a_host()["files"]).items() if file}
    assert due(a_host(**{**other, "files": files})) == parts


def test_a_clock_that_the_host_has_already_is_kept() -> None:
    packages = ["sudo", "nftables", "unattended-upgrades", "chrony"]
    host = a_host(packages=packages, units=without("systemd-timesyncd.service"))
    plan = decide.host_plan(host, wanted())
    assert (plan["due"], plan["packages"]) == ([], [])
    assert decide.host_clock(host) == "chrony.service"


def test_a_container_is_not_asked_for_what_its_machine_has() -> None:
    plan = decide.host_plan(a_host(container="docker", hostname="x", swaps={}, sysctl={}), wanted())
    assert plan["due"] == []
    assert plan["skipped"] == [
        "This host is a container (docker), which has its clock, kernel settings, swap and name from the machine it "
        "runs on: time, sysctl, swap and hostname skipped."
    ]


def test_without_systemd_parts_that_need_it_are_left_out() -> None:
    plan = decide.host_plan(a_host(container="docker", systemd=False, units={}, files={}), wanted())
    assert plan["due"] == ["user", "ssh", "undo"]
    assert "There is no systemd on this host: firewall, upgrades and logs skipped." in plan["skipped"]


def test_without_sshd_there_is_nothing_to_harden() -> None:
    plan = decide.host_plan(a_host(sshd={"installed": False, "effective": []}), wanted())
    assert plan["skipped"] == ["There is no OpenSSH server on this host: ssh skipped."]


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another system": (
        {"name": "Ubuntu 24.04.1 LTS", "distribution": "ubuntu"},
        {},
        "This host runs Ubuntu 24.04.1 LTS, and the kit supports Debian 12 and 13. "
        "Use a host with one of these, or take it out of host_parts; nothing was changed.",
    ),
    "no key": (
        {},
        {"user_keys": []},
        "host_parts has user, and host_user_keys is empty, so that nobody could log in as deploy. "
        "Give at least one public key there.",
    ),
    "the path of a key": (
        {},
        {"user_keys": [KEY, "~/.ssh/id_ed25519.pub"]},
        "host_user_keys[1] is no public key as authorized_keys has it. "
        "Give the line of a .pub file, for example by lookup('ansible.builtin.file', …).",
    ),
    "root that would lock itself out": (
        {},
        {"login": "root"},
        "Ansible logs in to this host as root, which host_ssh_root_login does not allow. "
        "Add user to host_parts, with host_user_keys, or set host_ssh_root_login to true.",
    ),
    "a rule that cannot be": (
        {},
        {"firewall": {"rules": [], "problem": "No such rule. Correct it."}},
        "No such rule. Correct it.",
    ),
    "a size that is none": (
        {},
        {"swap_size": "2 GB"},
        "host_swap_size is '2 GB', which is no size. Write a number and M or G, for example 2G.",
    ),
    "a setting that the kernel does not have": (
        {},
        {"sysctl_asked": ["vm.swapiness"]},
        "host_sysctl has vm.swapiness, which this host's kernel does not know. Correct its name or drop it.",
    ),
}


@pytest.mark.parametrize(("other", "settings", "sentence"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_said_before_anything_is_changed(
    other: dict[str, Any], settings: dict[str, Any], sentence: str
) -> None:
    plan = decide.host_plan(a_host(**other), wanted(**settings))
    assert (plan["problem"], plan["due"], plan["packages"]) == (sentence, [], [])


# --- keys -------------------------------------------------------------------------------------------------------------

OTHERS = "# of the installer\nssh-rsa AAAAB3NzaC1yc2E= somebody\n"


@pytest.mark.parametrize("text", ["", OTHERS, OTHERS.rstrip("\n"), decide.host_authorized(OTHERS, ["old", "older"])])
def test_the_keys_of_the_inventory_are_there_once_and_those_of_others_stay(text: str) -> None:
    written = decide.host_authorized(text, [KEY + "\n"])
    assert written.count(KEY) == 1
    assert "old" not in written
    assert ("somebody" in written) == bool(text)
    assert decide.host_authorized(written, [KEY]) == written


# --- sshd -------------------------------------------------------------------------------------------------------------


def sshd(**other: Any) -> dict[str, Any]:
    settings = {"password_login": False, "root_login": False, "allow_users": [], "options": {}, **other}
    return decide.host_sshd(settings)


def test_by_default_one_logs_in_with_a_key_and_not_as_root() -> None:
    options = dict(sshd()["options"])
    assert (
        options["PermitRootLogin"]
        == options["PasswordAuthentication"]
        == options["KbdInteractiveAuthentication"]
        == "no"
    )
    assert "AllowUsers" not in options
    assert "PermitRootLogin no\n" in render("sshd.conf.j2", __host_sshd=sshd())


def test_what_sshd_tells_of_itself_is_what_its_file_says() -> None:
    told = sshd(root_login=True, allow_users=["deploy", "anna"])
    assert dict(told["options"])["PermitRootLogin"] == "prohibit-password"
    assert "PermitRootLogin without-password" in told["effective"], "sshd -T has another word for it"
    assert {"AllowUsers deploy", "AllowUsers anna"} <= set(told["effective"])


def test_what_the_inventory_adds_replaces_what_the_kit_says() -> None:
    told = sshd(options={"x11forwarding": True, "MaxAuthTries": 3})
    assert [option for option in told["options"] if option[0].lower() == "x11forwarding"] == [("x11forwarding", "yes")]
    assert ("MaxAuthTries", "3") in told["options"]
    assert not [line for line in told["effective"] if line.lower().startswith("x11")]


# --- the firewall -----------------------------------------------------------------------------------------------------

GROUPS = {"app": ["app1", "app2"], "edge": ["edge1"], "database": ["db1"], "all": ["app1", "app2", "edge1", "db1"]}
HOSTVARS = {
    "app1": {"ansible_host": "203.0.113.11", "host_private_address": "10.20.0.11"},
    "app2": {"ansible_host": "app2.example", "host_private_address": "10.20.0.12"},
    "edge1": {"ansible_host": "203.0.113.31", "host_private_address": "10.20.0.31"},
    "db1": {"ansible_host": "db1.example"},
}


def firewall(*allow: dict[str, Any]) -> dict[str, Any]:
    return decide.host_firewall(allow, GROUPS, HOSTVARS)


def lines(*allow: dict[str, Any]) -> list[str]:
    """The rules of the chain that lets in, as they stand in the file."""
    told = firewall(*allow)
    assert told["problem"] == ""
    text = render("firewall.nft.j2", __host_firewall=told)
    return [line.strip() for line in text.splitlines() if " ct original proto-dst " in line]


RULES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "anybody": ({"port": 8080}, ['meta l4proto tcp ct original proto-dst 8080 accept comment "tcp 8080"']),
    "a range, with a comment": (
        {"port": "5000-5010", "protocol": "udp", "comment": 'the "game"'},
        [r'meta l4proto udp ct original proto-dst 5000-5010 accept comment "the \"game\""'],
    ),
    "a database, for the app hosts alone": (
        {"port": 5432, "sources": ["app"], "address": "10.20.0.21"},
        [
            "meta l4proto tcp ct original proto-dst 5432 ct original ip daddr 10.20.0.21"
            ' ip saddr { 10.20.0.11/32, 10.20.0.12/32, 203.0.113.11/32 } accept comment "tcp 5432"'
        ],
    ),
    "addresses of both families": (
        {"port": 22, "sources": ["192.0.2.7/24", "192.0.2.9", "2001:db8::/32"]},
        [
            'meta l4proto tcp ct original proto-dst 22 ip saddr { 192.0.2.0/24 } accept comment "tcp 22"',
            'meta l4proto tcp ct original proto-dst 22 ip6 saddr { 2001:db8::/32 } accept comment "tcp 22"',
        ],
    ),
    "an address and sources of another family": (
        {"port": 22, "sources": ["192.0.2.1", "2001:db8::1"], "address": "2001:db8::2"},
        [
            "meta l4proto tcp ct original proto-dst 22 ct original ip6 daddr 2001:db8::2"
            ' ip6 saddr { 2001:db8::1/128 } accept comment "tcp 22"'
        ],
    ),
    "one host": (
        {"port": 9100, "sources": ["edge1"]},
        [
            "meta l4proto tcp ct original proto-dst 9100"
            ' ip saddr { 10.20.0.31/32, 203.0.113.31/32 } accept comment "tcp 9100"'
        ],
    ),
}


@pytest.mark.parametrize(("allow", "rules"), RULES.values(), ids=RULES)
def test_what_is_to_be_let_in_becomes_rules(allow: dict[str, Any], rules: list[str]) -> None:
    assert lines(allow) == rules


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a port that is none": (
        {"port": "http"},
        "host_firewall_allow[0].port is 'http', which is no port. Give a number, or a range such as 8000-8010.",
    ),
    "a port too high": (
        {"port": 70000},
        "host_firewall_allow[0].port is '70000', which is no port. Give a number, or a range such as 8000-8010.",
    ),
    "a range the wrong way round": (
        {"port": "9-1"},
        "host_firewall_allow[0].port is '9-1', which is no port. Give a number, or a range such as 8000-8010.",
    ),
    "a protocol that is none": (
        {"port": 1, "protocol": "icmp"},
        "host_firewall_allow[0].protocol is 'icmp'. Write tcp or udp.",
    ),
    "a key that is none": (
        {"port": 1, "source": []},
        "host_firewall_allow[0] has the unknown key source. Compare it with docs/host.md.",
    ),
    "an address that is none": (
        {"port": 1, "address": "eth0"},
        "host_firewall_allow[0].address is 'eth0', which is no address. Give one that this host has.",
    ),
    "a source that nobody knows": (
        {"port": 1, "sources": ["monitoring"]},
        "host_firewall_allow[0] has the source 'monitoring', which is neither an address nor a network, nor a host or "
        "group of the inventory with an address. Correct it, or give its hosts a host_private_address.",
    ),
    "a host without an address": (
        {"port": 1, "sources": ["db1"]},
        "host_firewall_allow[0] has the source 'db1', which is neither an address nor a network, nor a host or group "
        "of the inventory with an address. Correct it, or give its hosts a host_private_address.",
    ),
}


@pytest.mark.parametrize(("allow", "sentence"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_let_in_is_said(allow: dict[str, Any], sentence: str) -> None:
    assert firewall(allow) == {"rules": [], "problem": sentence}


DATABASE = {"hosts": ["app2"], "port": 5432, "from": ["10.20.0.11", "10.20.0.12", "192.0.2.7"]}


def own(
    host: str, groups: dict[str, list[str]] = GROUPS, database: dict[str, Any] | None = None
) -> set[tuple[Any, ...]]:
    services: dict[str, dict[str, Any]] = {
        "web": {"port": 4000, "publish": 4100, "route": {"hosts": ["shop.example"]}},
        "api": {"port": 4200, "route": {"hosts": ["api.example"]}},
        "inner": {"port": 4300},
        "worker": {},
    }
    rules = decide.host_own_ports(
        host,
        groups,
        HOSTVARS,
        services,
        database=database or {},
        ssh_ports=["22", "2222"],
        ssh_sources=["192.0.2.0/24"],
        entry_ports=[80, 443],
    )
    return {(str(rule["port"]), *rule.get("sources", []), rule.get("address", "")) for rule in rules}


SSH = {("22", "192.0.2.0/24", ""), ("2222", "192.0.2.0/24", "")}


def test_users_reach_the_edge_tier_and_the_tier_reaches_what_app_hosts_offer_it() -> None:
    assert own("edge1") == SSH | {("80", ""), ("443", "")}
    assert own("app1") == SSH | {("4100", "edge1", "10.20.0.11"), ("4200", "edge1", "10.20.0.11")}
    assert own("db1") == SSH


def test_a_bundled_database_is_reached_by_whom_it_lets_in_itself_and_at_its_host_alone() -> None:
    clients = ("5432", "10.20.0.11", "10.20.0.12", "192.0.2.7", "10.20.0.12")
    assert own("app2", database=DATABASE) == own("app2") | {clients}
    assert own("app1", database=DATABASE) == own("app1")


def test_without_a_tier_users_reach_the_app_hosts() -> None:
    alone = {**GROUPS, "edge": []}
    assert own("app1", alone) == own("app1", {**alone, "edge": ["app1"]}) == SSH | {("80", ""), ("443", "")}


def test_the_table_of_the_kit_is_all_that_its_file_touches() -> None:
    text = render("firewall.nft.j2", __host_firewall=firewall({"port": 22}))
    words = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert words[:3] == ["table inet slipway", "delete table inet slipway", "table inet slipway {"]
    assert "flush" not in " ".join(words)
    assert [line for line in words if line.startswith(("table", "delete"))] == words[:3]


# --- the other files --------------------------------------------------------------------------------------------------


def test_security_updates_alone_are_taken_and_docker_never() -> None:
    text = render("unattended-upgrades.conf.j2")
    assert 'Automatic-Reboot "false";' in text
    assert "#clear Unattended-Upgrade::Origins-Pattern;" in text, "Debian's own file takes more"
    assert all(f'    "{package}";\n' in text for package in ("docker", "containerd", "runc"))
    assert all("label=Debian-Security" in line for line in text.splitlines() if "origin=" in line)


def test_kernel_settings_are_the_inventorys_and_those_of_the_kit_that_the_kernel_has() -> None:
    of_the_kit = VARS["__host_sysctl_of_the_kit"]
    settings = decide.host_sysctl(
        {"vm.swappiness": 10, "net.ipv4.tcp_rmem": "4096  87380\t6291456", "kernel.kptr_restrict": 2},
        of_the_kit,
        {"kernel.kptr_restrict": "0", "kernel.dmesg_restrict": "0"},
    )
    assert settings == {
        "vm.swappiness": "10",
        "net.ipv4.tcp_rmem": "4096 87380 6291456",
        "kernel.kptr_restrict": "2",
        "kernel.dmesg_restrict": "1",
    }
    assert "kernel.kptr_restrict = 2\n" in render("sysctl.conf.j2", __host_sysctl=settings)


@pytest.mark.parametrize("template", ["sudoers.j2", "timesyncd.conf.j2", "journald.conf.j2"])
def test_each_file_says_whose_it_is(template: str) -> None:
    assert render(template).startswith("# Written by Slipway")


# --- taking back ------------------------------------------------------------------------------------------------------


@pytest.fixture
def undo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, with a folder of changes of its own."""
    path = ROLE / "files/slipway-undo"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader("slipway_undo", str(path))
    spec = importlib.util.spec_from_loader("slipway_undo", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module, "CHANGES", tmp_path / "undo")
    return module


@pytest.fixture
def change(undo: ModuleType, tmp_path: Path) -> Callable[[str], Path]:
    """Make a change of two files, one of which was not there; gives the folder of its record."""

    def make(name: str) -> Path:
        folder: Path = undo.CHANGES / name
        folder.mkdir(parents=True)
        (tmp_path / "kept").write_text("new")
        (tmp_path / "made").write_text("new")
        was = {"path": str(tmp_path / "kept"), "content": "old", "mode": 0o640, "uid": 0, "gid": 0}
        was |= {"uid": tmp_path.stat().st_uid, "gid": tmp_path.stat().st_gid}
        files = [was, {"path": str(tmp_path / "made"), "content": None, "mode": None, "uid": None, "gid": None}]
        commands = [["touch", str(tmp_path / "reloaded")], ["false"]]
        (folder / "record.json").write_text(json.dumps({"name": "ssh", "files": files, "commands": commands}))
        return folder

    return make


def test_a_change_that_nobody_confirms_is_taken_back_whole(
    undo: ModuleType, change: Callable[[str], Path], tmp_path: Path
) -> None:
    change("ssh-1")
    assert undo.main(["ssh-1"]) == 0
    assert (tmp_path / "kept").read_text() == "old"
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o640
    assert not (tmp_path / "made").exists()
    assert (tmp_path / "reloaded").exists()
    assert not list(undo.CHANGES.iterdir())


def test_a_change_that_was_confirmed_stays(undo: ModuleType, change: Callable[[str], Path], tmp_path: Path) -> None:
    change("ssh-1").rename(tmp_path / "confirmed")
    assert undo.main(["ssh-1"]) == 0
    assert (tmp_path / "kept").read_text() == "new"


def test_at_boot_every_change_is_taken_back_also_one_in_the_middle_of_it(
    undo: ModuleType, change: Callable[[str], Path], tmp_path: Path
) -> None:
    change("firewall-2")
    change("ssh-1").rename(undo.CHANGES / ".ssh-1")
    assert undo.main(["--boot"]) == 0
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "reloaded").exists(), "services have not started yet"
    assert not list(undo.CHANGES.iterdir())
