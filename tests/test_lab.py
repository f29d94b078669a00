"""What is decided and written down about a lab before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lab.images import made_of
from lab.machines import (
    MACHINES,
    REGISTRY,
    SUITES,
    choose,
    elsewhere,
    free_network,
    groups,
    inventory,
    newest,
)
from lab.ssh import Host, config, known_host, options, write_private
from slipway.errors import SlipwayError

KIT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((KIT / "lab/compose.yml").read_text())
FOLDER = Path("/srv/a lab")


@pytest.mark.parametrize(
    ("words", "names", "has_registry"),
    [
        ([], ["app1"], True),
        (["1"], ["app1"], True),
        (["4"], ["app1", "app2", "app3", "edge1"], True),
        (["6"], ["app1", "app2", "app3", "edge1", "database1", "backup1"], True),
        (["edge1", "app1"], ["app1", "edge1"], False),
        (["app1", "registry"], ["app1"], True),
        (["debian12-noinit"], ["debian12-noinit"], False),
    ],
)
def test_hosts_are_counted_or_named(words: list[str], names: list[str], has_registry: bool) -> None:
    machines, with_registry = choose(words)
    assert [machine.name for machine in machines] == names
    assert with_registry is has_registry


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["0"], "A lab has between 1 and 6 hosts, and 0 were asked for."),
        (["7"], "A lab has between 1 and 6 hosts, and 7 were asked for."),
        (["app1", "app9"], "The lab knows no host app9."),
        (["app1", "2"], "The lab knows no host 2."),
    ],
)
def test_what_the_lab_does_not_have_is_refused_with_what_it_has(words: list[str], sentence: str) -> None:
    with pytest.raises(SlipwayError) as refused:
        choose(words)
    assert refused.value.what == sentence
    assert "app1, app2, app3, edge1, database1, backup1" in refused.value.do_next


def test_compose_describes_every_machine_as_it_is_told_of() -> None:
    assert set(COMPOSE["services"]) == {*MACHINES, REGISTRY}
    for name, machine in MACHINES.items():
        service = COMPOSE["services"][name]
        assert service["hostname"] == name
        assert service["networks"]["lab"]["ipv4_address"] == f"${{LAB_NETWORK:?}}.{machine.octet}"
        assert service["image"] == f"${{LAB_{machine.system.upper().replace('-', '_')}-unknown}}"
        kept = [f"{name}-docker:/var/lib/docker", f"{name}-containerd:/var/lib/containerd"]
        assert service["volumes"] == kept, "what a machine's engine keeps is its own"
    assert {SUITES[machine.system] for machine in MACHINES.values()} == {"trixie", "bookworm"}


def test_every_volume_is_declared_so_that_it_can_be_removed() -> None:
    used = {volume.partition(":")[0] for name in MACHINES for volume in COMPOSE["services"][name]["volumes"]}
    assert set(COMPOSE["volumes"]) == {*used, "registry"}


def test_a_network_that_overlaps_another_one_is_not_taken() -> None:
    assert free_network([]) == "10.213.64"
    assert free_network(["172.17.0.0/16", "10.213.64.0/24", "fd00::/64"]) == "10.213.65"
    assert free_network(["10.213.64.0/20"]) == "10.213.80"


def test_no_free_network_is_told_with_how_to_get_one() -> None:
    with pytest.raises(SlipwayError, match=r"^Every network of 10\.213\.64\.0/19 is in use\. .*make lab-down"):
        free_network(["10.0.0.0/8"])


def test_the_inventory_has_hosts_in_their_groups_and_how_to_log_in() -> None:
    machines, _ = choose(["app1", "app3", "edge1", "debian12-noinit"])
    hosts = [machine.host("10.213.70") for machine in machines]
    told = inventory(hosts, groups(machines), FOLDER, "")["all"]["children"]
    assert {group: list(told[group]["hosts"]) for group in told} == {
        "lab": ["app1", "app3", "edge1", "debian12-noinit"],
        "app": ["app1", "app3"],
        "edge": ["edge1"],
    }
    assert told["lab"]["hosts"]["app3"] == {"ansible_host": "10.213.70.13", "ansible_port": 22}
    assert told["lab"]["vars"]["ansible_user"] == "operator"
    assert told["lab"]["vars"]["ansible_ssh_common_args"] == "-F '/srv/a lab/ssh_config'"
    assert "docker_registries" not in told["lab"]["vars"]


def test_the_inventory_says_how_to_log_in_to_the_registry_and_holds_no_password(tmp_path: Path) -> None:
    (tmp_path / "registry-password").write_text("never-to-be-seen")
    told = inventory([], {}, tmp_path, "10.213.70.5:5000")
    [login] = told["all"]["children"]["lab"]["vars"]["docker_registries"]
    assert (login["host"], login["username"]) == ("10.213.70.5:5000", "lab")
    assert f"'{tmp_path}/registry-password'" in login["password"]
    assert f"'{tmp_path}/registry-ca.crt'" in login["ca"]
    assert "never-to-be-seen" not in yaml.safe_dump(told)


def test_ssh_knows_each_host_by_name_and_address_and_nothing_from_elsewhere() -> None:
    written = config([Host("app1", "10.213.70.11"), Host("vm", "127.0.0.1", 2201)], FOLDER)
    assert "Host app1 10.213.70.11\n  HostName 10.213.70.11\n  Port 22\n" in written
    assert "Host vm 127.0.0.1\n  HostName 127.0.0.1\n  Port 2201\n" in written
    assert 'UserKnownHostsFile "/srv/a lab/known_hosts"\n  GlobalKnownHostsFile /dev/null\n' in written
    assert "StrictHostKeyChecking yes" in written
    assert options(FOLDER) == ["-F", "/srv/a lab/ssh_config"]


def test_a_host_on_another_port_is_known_by_it() -> None:
    assert known_host(Host("app1", "10.213.70.11"), "ssh-ed25519 KEY\n") == "10.213.70.11 ssh-ed25519 KEY\n"
    assert known_host(Host("vm", "127.0.0.1", 2201), "ssh-ed25519 KEY") == "[127.0.0.1]:2201 ssh-ed25519 KEY\n"


def test_of_each_repository_the_newest_image_is_copied_under_all_of_its_tags() -> None:
    lock = {
        "127.0.0.1:5000/slipway/backend": {"build.1": "sha256:1", "dev": "sha256:2", "build.2": "sha256:2"},
        "127.0.0.1:5000/slipway/empty": {},
    }
    assert newest(lock) == {"127.0.0.1:5000/slipway/backend": {"dev": "sha256:2", "build.2": "sha256:2"}}
    assert elsewhere("127.0.0.1:5000/slipway/backend", "10.213.70.5:5000") == "10.213.70.5:5000/slipway/backend"


def test_an_image_with_docker_is_made_anew_when_its_machine_is_another() -> None:
    assert made_of("sha256:1") == made_of("sha256:1") != made_of("sha256:2")


def test_what_is_secret_is_readable_for_its_owner_alone(tmp_path: Path) -> None:
    write_private(tmp_path / "secret", "first")
    write_private(tmp_path / "secret", "second")
    assert (tmp_path / "secret").read_text() == "second"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
