"""A lab of two hosts and a registry as `make lab` starts it, and nothing of it after `make lab-down`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab.lab import Lab
from lab.machines import choose
from lab.registry import Registry, lab_registry

KIT = Path(__file__).parents[1]
PROJECT = "slipway-testlab"

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab, until it is removed."""
    lab = Lab(PROJECT, tmp_path_factory.mktemp("labs") / "lab")
    lab.down()
    try:
        machines, registry = choose(["app1", "edge1", "registry"])
        lab.up(machines, registry=registry)
        yield lab
    finally:
        lab.down()
    assert lab.left() == []


def ssh(lab: Lab, host: str, command: str, *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    call = ["ssh", *lab.ssh_options, host, command]
    return subprocess.run(call, input=stdin, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def registry(lab: Lab) -> Registry:
    """The lab's registry, as its user asks it."""
    return lab_registry(lab.folder, variables(lab)["docker_registries"][0]["host"])


def variables(lab: Lab) -> dict[str, list[dict[str, str]]]:
    """What its inventory says of all of its hosts."""
    found: dict[str, list[dict[str, str]]] = yaml.safe_load(lab.inventory.read_text())["all"]["children"]["lab"]["vars"]
    return found


def test_its_user_may_be_root_and_root_may_not_log_in(lab: Lab) -> None:
    assert ssh(lab, "app1", "whoami; sudo whoami; hostname").stdout.split() == ["operator", "root", "app1"]
    assert "Permission denied" in ssh(lab, "root@app1", "true").stderr


def test_hosts_find_each_other_and_none_is_taken_for_another(lab: Lab) -> None:
    listens = "python3 -c 'import socket; print(socket.create_connection((\"edge1\", 22)).recv(3))'"
    assert ssh(lab, "app1", listens).stdout == "b'SSH'\n"
    identity = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub; sudo docker info --format '{{.ID}}'"
    one, other = (ssh(lab, host, identity).stdout.splitlines() for host in ("app1", "edge1"))
    assert len(one) == len(other) == 3
    assert not set(one) & set(other)


def test_it_has_an_engine_of_its_own(lab: Lab) -> None:
    asked = ssh(
        lab, "app1", "sudo docker info --format '{{.Name}} {{.Containers}}'; sudo docker compose version --short"
    )
    name, compose = asked.stdout.splitlines()
    assert name == "app1 0"
    assert compose >= "2.20"


def test_ansible_reaches_it_by_its_inventory(lab: Lab) -> None:
    ansible = str(Path(sys.executable).with_name("ansible"))
    call = [ansible, "-i", str(lab.inventory), "app", "-b", "-m", "ansible.builtin.command", "-a", "id -un"]
    done = subprocess.run(call, cwd=KIT, capture_output=True, text=True, check=False, timeout=60)
    assert "root" in done.stdout.splitlines(), done.stdout + done.stderr


def test_its_registry_lets_in_who_has_the_password_and_the_authority(lab: Lab, registry: Registry) -> None:
    assert registry.answers()
    assert not Registry(registry.host, "guessed", registry.ca).answers()
    assert not Registry(registry.host, registry.password, Path("/etc/ssl/certs/ca-certificates.crt")).answers()


def test_its_registry_has_the_images_that_the_kit_built_with_their_digests(lab: Lab, registry: Registry) -> None:
    built = yaml.safe_load((KIT / "inventories/local/images.lock.yml").read_text())["images"]
    copied = yaml.safe_load((lab.folder / "images.lock.yml").read_text())["images"]
    for repository, tags in built.items():
        path = repository.partition("/")[2]
        tag, digest = list(tags.items())[-1]
        assert copied[f"{registry.host}/{path}"][tag] == digest
        assert registry.digest(path, tag) == digest


def test_a_host_pulls_from_the_registry_by_digest_once_it_has_logged_in(lab: Lab, registry: Registry) -> None:
    copied = yaml.safe_load((lab.folder / "images.lock.yml").read_text())["images"]
    repository = f"{registry.host}/slipway/edge"
    image = f"{repository}@{list(copied[repository].values())[-1]}"
    assert registry.ca is not None
    trust = f"sudo install -D -m 0644 /dev/stdin /etc/docker/certs.d/{registry.host}/ca.crt"
    assert ssh(lab, "app1", trust, stdin=registry.ca.read_text()).returncode == 0
    assert "no basic auth credentials" in ssh(lab, "app1", f"sudo docker pull {image}").stderr
    login = f"sudo docker login --username lab --password-stdin {registry.host}"
    assert "Login Succeeded" in ssh(lab, "app1", login, stdin=registry.password).stdout
    pulled = ssh(lab, "app1", f"sudo docker pull --quiet {image}")
    assert pulled.stdout.strip() == image, pulled.stderr


def test_its_secrets_are_in_files_that_nobody_else_reads_and_in_no_description_of_a_container(lab: Lab) -> None:
    secret = {"key", "registry-password", "inventory.yml", "tls.key", "htpasswd"}
    found = {path.name: path.stat().st_mode & 0o077 for path in lab.folder.rglob("*") if path.name in secret}
    assert found == dict.fromkeys(secret, 0)
    password = (lab.folder / "registry-password").read_text()
    containers = [lab.container("app1"), lab.container("registry")]
    described = subprocess.run(["docker", "inspect", *containers], capture_output=True, text=True, check=True).stdout
    assert password not in described
    assert password not in lab.inventory.read_text()


def test_starting_it_again_leaves_what_is_up_as_it_is(lab: Lab) -> None:
    before = since(lab)
    lab.up(choose(["app1"])[0], registry=False)
    assert since(lab) == before
    assert "docker_registries" in variables(lab), "the registry that is there is still told of"


def test_removing_it_leaves_nothing_and_what_it_had_was_seen(lab: Lab) -> None:
    had = {line.split()[0] for line in lab.left()}
    assert had == {"container", "network", "volume", "process", "folder"}
    lab.down()
    assert lab.left() == []
    assert not (lab.folder).exists()


def since(lab: Lab) -> str:
    command = [
        "docker",
        "inspect",
        "--format",
        "{{.State.StartedAt}}",
        lab.container("app1"),
        lab.container("registry"),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
