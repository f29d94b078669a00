"""The inventories of the kit: each is whole, none repeats another, and each passes the controller's preflight."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.inventory_copies import KIT, run, said

ENVIRONMENTS = ["development", "staging", "production"]
DOCUMENTATION = [ipaddress.ip_network(one) for one in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
"""RFC 5737."""


def folder(name: str) -> Path:
    return KIT / "inventories" / name


def data(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    return found


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the inventories, as a checkout has them, with their secrets generated."""
    copy = tmp_path_factory.mktemp("kit") / "inventories"
    for name in ENVIRONMENTS:
        shutil.copytree(folder(name), copy / name, ignore=shutil.ignore_patterns(".secrets"))
        done = run("ansible-playbook", "-i", str(copy / name), "playbooks/secrets.yml")
        assert done.returncode == 0, said(done)
    return copy


@pytest.fixture(scope="module")
def first_play(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first play of playbooks/site.yml, as a playbook of its own."""
    play = yaml.safe_load((KIT / "playbooks/site.yml").read_text())[0]
    assert play["name"] == "Check the inventory before anything is touched"
    playbook = tmp_path_factory.mktemp("playbooks") / "contract.yml"
    playbook.write_text(yaml.safe_dump([play]))
    return str(playbook)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_has_its_files(name: str) -> None:
    files = {"hosts.yml", *(f"group_vars/all/{part}.yml" for part in ("main", "app", "vault"))}
    assert not {file for file in files if not (folder(name) / file).is_file()}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_secret_and_no_password_of_a_vault_is_in_the_kit(name: str) -> None:
    assert data(folder(name) / "group_vars/all/vault.yml") == {}
    ignored = run_git("check-ignore", f"inventories/{name}/.secrets/vault_password")
    assert ignored.returncode == 0


def run_git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=KIT, capture_output=True, text=True, check=False)


def variables(name: str) -> Iterator[tuple[str, str]]:
    """Each variable that an inventory sets, with its value as text."""
    files = [*(folder(name) / "group_vars").rglob("*.yml"), *(folder(name) / "host_vars").rglob("*.yml")]
    for path in files:
        yield from ((key, json.dumps(value)) for key, value in data(path).items())
    yield from of_group(data(folder(name) / "hosts.yml")["all"])


def of_group(group: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for own in [group.get("vars") or {}, *(host or {} for host in (group.get("hosts") or {}).values())]:
        yield from ((key, json.dumps(value)) for key, value in own.items())
    for child in (group.get("children") or {}).values():
        yield from of_group(child or {})


def test_no_variable_has_the_same_value_in_two_inventories() -> None:
    names = sorted(path.parent.name for path in KIT.glob("inventories/*/hosts.yml"))
    assert set(names) >= {"local", *ENVIRONMENTS}
    seen: dict[tuple[str, str], str] = {}
    for name in names:
        for variable in set(variables(name)):
            assert variable not in seen, f"{seen.get(variable)} and {name} both say {variable}: make it a default"
            seen[variable] = name


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_addresses_are_those_of_documentation(name: str) -> None:
    addresses = [json.loads(value) for key, value in variables(name) if key == "ansible_host"]
    assert addresses
    assert all(any(ipaddress.ip_address(one) in network for network in DOCUMENTATION) for one in addresses)


def test_production_has_its_machines_by_groups() -> None:
    done = run("ansible-inventory", "-i", "inventories/production", "--list")
    groups = json.loads(done.stdout)
    assert {name: len(groups[name]["hosts"]) for name in ("app", "database", "edge")} == {
        "app": 3,
        "database": 1,
        "edge": 1,
    }
    known = groups["_meta"]["hostvars"]
    names = ("app", "database", "edge")
    private = [known[host].get("host_private_address") for name in names for host in groups[name]["hosts"]]
    assert all(private), "the edge tier, the machines behind it and their database would not find each other"
    assert len(set(private)) == 5


@pytest.mark.parametrize("name", ["local", *ENVIRONMENTS])
def test_it_is_an_inventory(name: str) -> None:
    done = run("ansible-inventory", "-i", f"inventories/{name}", "--list")
    assert done.returncode == 0, said(done)
    assert json.loads(done.stdout)["app"]["hosts"]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_with_its_secrets_generated_it_passes_the_half_of_preflight_that_needs_no_host(
    name: str, copies: Path, first_play: str
) -> None:
    done = run("ansible-playbook", "-i", str(copies / name), first_play)
    assert done.returncode == 0, said(done)
    assert "failed=0" in done.stdout


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_without_them_the_one_sentence_says_how_to_get_them(name: str, first_play: str) -> None:
    done = run("ansible-playbook", "-i", f"inventories/{name}", first_play)
    assert done.returncode != 0
    assert f"missing. Generate them: ansible-playbook -i inventories/{name} playbooks/secrets.yml." in said(done)
    assert "undefined" not in said(done)


@pytest.mark.parametrize(("name", "strategy"), [("development", False), ("staging", True), ("production", True)])
def test_a_moving_tag_is_refused_where_tags_are_immutable(
    name: str, strategy: bool, copies: Path, first_play: str
) -> None:
    done = run("ansible-playbook", "-i", str(copies / name), first_play, "-e", "backend_tag=dev")
    assert ("deploys the moving tag 'dev'" in said(done)) == strategy
    assert (done.returncode != 0) == strategy


def test_a_database_in_a_file_is_refused_for_several_hosts(copies: Path, first_play: str) -> None:
    embedded = '{"app_database": {"mode": "embedded"}}'
    done = run("ansible-playbook", "-i", str(copies / "production"), first_play, "-e", embedded)
    assert done.returncode != 0
    assert (
        "The service backend keeps its database in a file on its host (SQLite), and the group app has 3 hosts, "
        "which would each have one of their own."
    ) in said(done)


def test_production_connects_to_the_database_host_that_its_inventory_names(copies: Path, tmp_path: Path) -> None:
    tell = [
        {"ansible.builtin.import_role": {"name": "database", "tasks_from": "contract.yml"}},
        {"ansible.builtin.import_role": {"name": "backend"}},
        {"ansible.builtin.debug": {"msg": "{{ backend_database_url }} {{ backend_migrations_url }}"}},
    ]
    playbook = tmp_path / "tell.yml"
    playbook.write_text(yaml.safe_dump([{"hosts": "app1", "gather_facts": False, "tasks": tell}]))
    done = run("ansible-playbook", "-i", str(copies / "production"), str(playbook))
    assert done.returncode == 0, said(done)
    hosts = data(folder("production") / "hosts.yml")["all"]["children"]["database"]["hosts"]
    [address] = [one["host_private_address"] for one in hosts.values()]
    urls = re.findall(r"postgresql://(\w+):(\w{43})@([\d.]+):5432/semiont\?sslmode=verify-full", done.stdout)
    assert [(user, host) for user, _, host in urls] == [("semiont", address), ("semiont_owner", address)]
    assert urls[0][1] != urls[1][1]


def test_productions_firewall_lets_in_what_the_machines_ask_of_each_other(tmp_path: Path) -> None:
    tell = [
        {"ansible.builtin.import_role": {"name": "database", "tasks_from": "contract.yml"}},
        {"ansible.builtin.import_role": {"name": "backend", "rolespec_validate": False}},
        {"ansible.builtin.debug": {"msg": "{{ __host_firewall }}"}, "vars": {"__host_ssh_ports": ["22"]}},
    ]
    role = KIT / "roles/host"
    of_role = [str(role / "defaults/main.yml"), str(role / "vars/main.yml")]
    playbook = tmp_path / "tell.yml"
    playbook.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "vars_files": of_role, "tasks": tell}]))
    done = run("ansible-playbook", "-v", "-i", "inventories/production", str(playbook))
    assert done.returncode == 0, said(done)
    shown = re.findall(r"^ok: \[(\w+)\] => (\{\n.*?^\})$", done.stdout, re.MULTILINE | re.DOTALL)
    let_in = {
        host: {
            (rule["ports"], *rule["sources"], rule["address"])
            for rule in json.loads(answer)["msg"]["rules"]
            if rule["ports"] != "22"
        }
        for host, answer in shown
    }
    tier = ["203.0.113.31/32", "10.20.0.31/32"]
    assert let_in["app1"] == {("4000", *sorted(tier, key=ipaddress.ip_network), "10.20.0.11")}
    assert let_in["db1"] == {("5432", "10.20.0.11/32", "10.20.0.12/31", "10.20.0.21")}
    assert let_in["edge1"] == {("80", ""), ("443", "")}


def test_production_takes_over_what_staging_runs_and_passes_again(copies: Path, first_play: str) -> None:
    staging, lock = copies / "staging/images.lock.yml", copies / "production/images.lock.yml"
    entries = data(staging)
    digest = "sha256:" + "7" * 64
    entries["images"]["registry.example/slipway-staging/backend"]["0.1.0-build.99"] = digest
    staging.write_text(yaml.safe_dump(entries, sort_keys=False))
    promote = ("-i", str(copies / "production"), "playbooks/promote.yml", "-e", "promote_from=staging")
    assert "changed=1" in said(run("ansible-playbook", *promote, "--check"))
    assert digest not in lock.read_text()
    done = said(run("ansible-playbook", *promote))
    assert (
        "--tag registry.example/slipway/backend:0.1.0-build.99 registry.example/slipway-staging/backend@" + digest
    ) in done
    assert list(data(lock)["images"]["registry.example/slipway/backend"].items())[-1] == ("0.1.0-build.99", digest)
    assert "changed=0" in said(run("ansible-playbook", *promote))
    assert run("ansible-playbook", "-i", str(copies / "production"), first_play).returncode == 0


def test_an_environment_without_images_is_none_to_take_over(copies: Path) -> None:
    done = run("ansible-playbook", "-i", str(copies / "production"), "playbooks/promote.yml", "-e", "promote_from=none")
    assert done.returncode != 0
    assert "The other environment's images.lock.yml has no repositories called backend" in said(done)
