"""Fills the examples in for the machines of a lab, as an operator would: `molecule/examples`.

    python -m tests.conformance.inventories --lab FOLDER --to FOLDER --machines '{"clearsplit": "app1", …}'

Builds the programs of all examples, puts them into the lab's registry, and writes into the second folder: for each
example a folder with its inventory, secrets generated; `hosts.yml`, by which tests reach all of them; `roles.sql`,
which makes their roles and databases.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.commands import at_once
from lab.machines import REGISTRY_USER, elsewhere
from lab.registry import LOCAL, Registry, fill, lab_registry
from lab.ssh import write_private
from tests.conformance.programs import CA, DATABASES, LISTEN, PEERS, build_system, build_tools
from tests.engine.conftest import docker, forget
from tests.inventory_copies import EXAMPLES, KIT, TOOLS, copy, said, variables

PREFIX = "lab-examples"
REPOSITORY = f"{LOCAL}/{PREFIX}"
VERSIONS = ("1.0", "2.0", "3.0", "3.2")
POSTGRES = f"{LOCAL}/slipway/postgres"
SQL = "CREATE EXTENSION IF NOT EXISTS citext;\nCREATE TABLE items (id int PRIMARY KEY, name citext);\n"
"""In the place of NeuronIP's schema file."""
IMAGES = {
    "clearsplit": {"ghcr.io/yslim-030622/clearsplit/api": "clearsplit"},
    "neuronip": {"docker.io/neuronip/api": "neuronip", "docker.io/neuronip/frontend": "frontend"},
    "semiont": {
        "ghcr.io/the-ai-alliance/semiont-backend": "semiont",
        "ghcr.io/the-ai-alliance/semiont-frontend": "frontend",
    },
    "todo": {
        f'"{{{{ todo_registry }}}}/{image}"': program
        for image, program in (("backend", "todo"), ("auth-server", "auth-server"), ("ai-agent", "ai-agent"))
    },
}
"""Example -> what its contract calls an image, and the program that behaves like what is in it."""
TAGS = {
    "clearsplit": {"clearsplit_tag": '"1.2.3"'},
    "neuronip": {"neuronip_tag": '"1.2.3"'},
    "semiont": {"semiont_tag": "0.1.0-build.123"},
    "todo": {"todo_tag": '"1.4.0"', "todo_auth_tag": '"1.1.0"', "todo_agent_tag": '"0.9.0"'},
}
DATABASE_HOSTS = {
    "clearsplit": "db.clearsplit.example",
    "semiont": "db.semiont.example",
    "todo": "neon-host.neon.example",
}
"""NeuronIP finds its own on the Docker network, by the name that is in the example."""


@dataclass(frozen=True)
class Found:
    """What an operator knows of the place where an application is to run."""

    folder: Path
    """The lab's own files."""
    registry: str
    lock: dict[str, dict[str, str]]
    """The images in it: repository, tag, digest."""
    machines: dict[str, dict[str, Any]]
    """Machine -> how to log in to it."""

    @property
    def ca(self) -> str:
        """What the registry's certificate is verified by."""
        return (self.folder / "registry-ca.crt").read_text()

    @property
    def token(self) -> str:
        """What the registry lets read."""
        return (self.folder / "registry-password").read_text()


def look(folder: Path) -> Found:
    """Find out about a lab, and put the programs into its registry."""
    told = yaml.safe_load((folder / "inventory.yml").read_text())["all"]["children"]["lab"]
    registry = told["vars"]["docker_registries"][0]["host"]
    login = {name: value for name, value in told["vars"].items() if name.startswith("ansible_")}
    programs = _build()
    fill(lab_registry(folder, registry), programs)
    kit = yaml.safe_load((folder / "images.lock.yml").read_text())["images"]
    return Found(
        folder,
        registry,
        {elsewhere(name, registry): tags for name, tags in {**kit, **programs}.items() if name.startswith(LOCAL)},
        {name: {**host, **login} for name, host in told["hosts"].items()},
    )


def _build() -> dict[str, dict[str, str]]:
    """Build the programs; gives their digests in the registry of this machine: repository, tag, digest."""
    tools = f"{PREFIX}-tools"
    build_tools(tools)
    at_once(lambda system: build_system(system, tools, REPOSITORY, VERSIONS), LISTEN)
    registry = Registry(LOCAL)
    built = {
        f"{REPOSITORY}/{system}": {tag: registry.digest(f"{PREFIX}/{system}", tag) for tag in VERSIONS}
        for system in LISTEN
    }
    # Those beside them have not changed from one version to the next.
    peers = {
        f"{REPOSITORY}/{peer}": dict.fromkeys(VERSIONS, registry.digest(f"{PREFIX}/{peer}", "1.0")) for peer in PEERS
    }
    return {**built, **peers}


def fill_in(example: str, inventory: Path, machine: str, found: Found) -> None:
    """Write into a copy of an example what its documents say that an operator does."""
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    [host] = hosts["all"]["children"]["app"]["hosts"].values()
    host.update(found.machines[machine])
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False))
    (inventory / "images.lock.yml").write_text(yaml.safe_dump({"images": found.lock}, sort_keys=False))
    (inventory / "registry-ca.pem").write_text(found.ca)

    repository = f"{found.registry}/{PREFIX}"
    changes = {f"{variable}: {tag}": f'{variable}: "1.0"' for variable, tag in TAGS[example].items()}
    changes |= {f"image: {image}": f"image: {repository}/{program}" for image, program in IMAGES[example].items()}
    if example in DATABASE_HOSTS:
        changes[DATABASE_HOSTS[example]] = found.machines["database1"]["ansible_host"]
    if example == "neuronip":
        (inventory / "sql/neuronip.sql").write_text(SQL)
        postgres = elsewhere(POSTGRES, found.registry)
        changes["docker.io/library/postgres"] = postgres
        changes['"16.11"'] = f'"{list(found.lock[postgres])[-1]}"'
    # No authority out there hands out certificates for a lab.
    changes[f'{{mode: acme, email: "{{{{ {example}_mail }}}}"}}'] = "{mode: internal}"
    changes[f"# {example}_registry_token:"] = f"{example}_registry_token:"
    _change(inventory / "group_vars/all/app.yml", changes)

    main = inventory / "group_vars/all/main.yml"
    lines = main.read_text().partition("# docker_registries:")
    login = yaml.safe_load("".join(f"{line.removeprefix('# ')}\n" for line in "".join(lines[1:]).splitlines()))
    login["docker_registries"][0] |= {
        "host": found.registry,
        "username": REGISTRY_USER,
        "ca": "{{ lookup('ansible.builtin.file', inventory_dir ~ '/registry-ca.pem') }}",
    }
    # Long enough to see that it is done.
    login["release_soak_seconds"] = 1
    if Path(CA).exists():
        login["docker_ca_bundle"] = CA
    main.write_text(lines[0] + yaml.safe_dump(login, sort_keys=False, width=160))
    _change(main, {"registry.example/slipway/edge": f"{found.registry}/slipway/edge"})


def _change(file: Path, changes: Mapping[str, str]) -> None:
    text = file.read_text()
    for old, new in changes.items():
        assert old in text, f"{file} no longer has {old}"
        text = text.replace(old, new)
    file.write_text(text)


def give_token(example: str, inventory: Path, token: str) -> None:
    """Put the registry's token into the vault, by the editor that an operator would have."""
    vault, password = inventory / "group_vars/all/vault.yml", inventory / ".secrets/vault_password"
    done = subprocess.run(
        [TOOLS / "ansible-vault", "edit", "--vault-id", f"{inventory.name}@{password}", vault],
        cwd=KIT,
        env={**os.environ, "EDITOR": "tee --append"},
        input=f'{example}_registry_token: "{token}"\n',
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, said(done)


def prepare(example: str, to: Path, machine: str, found: Found) -> str:
    """Make the inventory of an example; gives the SQL that makes its role and its database."""
    # As in four checkouts: side by side they would be refused, since they share the registry's token.
    inventory = copy(example, to / example)
    fill_in(example, inventory, machine, found)
    give_token(example, inventory, found.token)
    password = f"{example}_database_password"
    secret = variables(inventory, password)[password]
    inventory.with_name(f"{inventory.name}.json").unlink()
    return f"CREATE ROLE {example} LOGIN PASSWORD '{secret}';\nCREATE DATABASE {DATABASES[example]} OWNER {example};\n"


def main() -> None:
    """Prepare all of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--machines", type=json.loads, required=True)
    told = parser.parse_args()
    assert sorted(told.machines) == EXAMPLES
    shutil.rmtree(told.to, ignore_errors=True)
    told.to.mkdir(mode=0o700)
    try:
        found = look(told.lab)
    finally:
        for name in (*LISTEN, *PEERS):
            forget(f"{REPOSITORY}/{name}")
        docker("image", "rm", "--force", f"{PREFIX}-tools", check=False)
    roles = at_once(lambda example: prepare(example, told.to, told.machines[example], found), EXAMPLES)
    write_private(told.to / "roles.sql", "".join(roles))
    app = {
        example: {**found.machines[machine], "slipway_name": f"{example}-production"}
        for example, machine in told.machines.items()
    }
    groups = {"app": {"hosts": app}, "database": {"hosts": {"database1": found.machines["database1"]}}}
    write_private(told.to / "hosts.yml", yaml.safe_dump({"all": {"children": groups}}, sort_keys=False, width=160))


if __name__ == "__main__":
    main()
