"""Staging gets the data of production, by the playbooks that an operator types, with a vault for each."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engine.conftest import KIT, PREFIX, docker, free_port
from tests.inventory_copies import run, said

pytestmark = [pytest.mark.docker, pytest.mark.long]

LOCK = KIT / "inventories/local/images.lock.yml"
HOSTS = """\
all:
  vars: {ansible_connection: local, ansible_python_interpreter: /usr/bin/python3, ansible_become: false}
  children:
    app: {hosts: {here: }}
    builder:
    registry:
"""


class Site:
    """One environment of the bundled backend on this machine, with its own inventory."""

    def __init__(self, folder: Path, environment: str) -> None:
        self.name = f"{PREFIX}{environment}"
        self.port = free_port()
        self.inventory = folder / environment
        files = self.inventory / "group_vars" / "all"
        files.mkdir(parents=True)
        (self.inventory / "hosts.yml").write_text(HOSTS)
        declared = {
            "slipway_name": self.name,
            "slipway_environment": environment,
            "app_services": "{{ backend_services }}",
            "app_image_tag_strategy": "mutable",
            "backend_publish": self.port,
            "backend_jwt_secret": "{{ backend_jwt }}",
            "release_images_lock_file": str(LOCK),
            "release_soak_seconds": 0,
            # Each its own, and never at a time of day.
            "backup_target": str(folder / f"archive-of-{environment}"),
            "backup_times": [],
            "backup_drill_time": "",
        }
        (files / "main.yml").write_text(yaml.safe_dump(declared))
        (files / "app.yml").write_text("app_secrets: {backend_jwt: key}\n")
        self.play("secrets")

    def play(self, playbook: str, *, ok: bool = True, **variables: str) -> str:
        extra = ["-e", json.dumps(variables)] if variables else []
        done = run("ansible-playbook", "-i", str(self.inventory), f"playbooks/{playbook}.yml", *extra)
        assert (done.returncode == 0) == ok, said(done)
        return said(done)

    def ask(self, path: str, **content: str) -> Any:
        [container] = docker("ps", "--quiet", "--filter", f"label=org.slipway.name={self.name}").split()
        token = docker("exec", container, "backend", "token").strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = json.dumps(content).encode() if content else None
        url = f"http://127.0.0.1:{self.port}/api/{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers), timeout=5) as answer:
            return json.load(answer)


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[tuple[Site, Site]]:
    made = [Site(tmp_path, "production"), Site(tmp_path, "staging")]
    try:
        for site in made:
            site.play("archive")
            site.play("deploy")
        yield made[0], made[1]
    finally:
        for site in made:
            request = {"protocol": 1, "name": site.name, "run": "test", "by": "test"}
            subprocess.run(["slipway", "destroy", "--json"], input=json.dumps(request), text=True, check=False)


def test_staging_gets_the_data_of_production_without_what_nobody_may_see(sites: tuple[Site, Site]) -> None:
    production, staging = sites
    production.ask("documents", title="The salary of Alice", content="It is high.")
    staging.ask("documents", title="A test", content="")
    production.play("backup")
    refused = staging.play("restore", ok=False, restore_from="production")
    backup = refused.partition("confirm_data_loss=")[2].split(". ")[0].split()[0].rstrip(".")
    assert "what was written since is lost" in refused
    assert [one["title"] for one in staging.ask("documents")["documents"]] == ["A test"]

    staging.play("restore", restore_from="production", confirm_data_loss=backup)
    [document] = staging.ask("documents")["documents"]
    assert document["title"] == "Document 1"
    assert staging.ask("documents/1")["content"] == "Its content was taken out."
    assert production.ask("documents/1")["title"] == "The salary of Alice"
    # Staging goes on with its own archive, and knows nothing of production's.
    password = vault_of(production)["backup_password"]
    assert password not in refused
    kept = Path("/srv/slipway") / staging.name
    assert not any(password in file.read_text(errors="replace") for file in kept.rglob("*") if file.is_file())


def test_an_environment_that_is_not_there_or_has_no_archive_is_told(sites: tuple[Site, Site]) -> None:
    production, staging = sites
    assert "There is no environment prod beside this one." in staging.play("restore", ok=False, restore_from="prod")
    main = production.inventory / "group_vars/all/main.yml"
    main.write_text(yaml.safe_dump({**yaml.safe_load(main.read_text()), "backup_target": ""}))
    told = staging.play("restore", ok=False, restore_from="production")
    assert "The environment production has no archive" in told


def vault_of(site: Site) -> dict[str, str]:
    """What its vault holds."""
    shown = run(
        "ansible-vault",
        "view",
        f"--vault-id={site.inventory.name}@{site.inventory}/.secrets/vault_password",
        str(site.inventory / "group_vars/all/vault.yml"),
    )
    found: dict[str, str] = yaml.safe_load(shown.stdout)
    return found
