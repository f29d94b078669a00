"""playbooks/secrets.yml as an operator runs it, on inventories of their own; nothing that it prints is a secret."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway import vault

KIT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent
SECRETS = "playbooks/secrets.yml"
OWN = """\
---
slipway_name: shop-{name}
slipway_environment: {name}
app_database: {{backup: none}}
app_services:
  api:
    image: registry.example/shop/api
    digest: sha256:{digest}
    user: "1001:1001"
    port: 8000
    secret_env: {{API_TOKEN: "{{{{ shop_token }}}}"}}
app_secrets:
  shop_token: hex32
  shop_cookie_key: {{kind: fernet, previous: shop_cookie_key_previous}}
  shop_database_password: {{kind: password, note: "Tell the database."}}
  shop_smtp_password: {{kind: given, note: "The provider's console shows it."}}
"""
GIVEN = "given-by-the-provider-0123456789"


class Shop:
    """Environments of an image that is not the kit's, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("staging", "production"):
            files = folder / name / "group_vars" / "all"
            files.mkdir(parents=True)
            (files / "main.yml").write_text(OWN.format(name=name, digest="1" * 64))
            (folder / name / "hosts.yml").write_text("app: {hosts: {shop1: {ansible_host: 192.0.2.1}}}\n")
        play = yaml.safe_load((KIT / "playbooks/site.yml").read_text())[0]
        self.contract = str(folder / "contract.yml")
        Path(self.contract).write_text(yaml.safe_dump([play]))

    def vault(self, name: str = "production") -> Path:
        return self.folder / name / vault.VAULT

    def password(self, name: str = "production") -> Path:
        return self.folder / name / vault.PASSWORD

    def play(self, name: str, *options: str, playbook: str = SECRETS, ok: bool = True) -> str:
        """What a run prints, in one line."""
        done = run("ansible-playbook", "-i", str(self.folder / name), playbook, *options)
        said = " ".join(f"{done.stdout} {done.stderr}".split())
        assert (done.returncode == 0) == ok, said
        assert "Traceback" not in said
        return said

    def check(self, name: str, *options: str, ok: bool = True) -> str:
        """What the half of preflight that needs no host says."""
        return self.play(name, *options, playbook=self.contract, ok=ok)

    def values(self, name: str = "production") -> dict[str, Any]:
        """What the vault holds."""
        options = ["--vault-id", f"{name}@{self.password(name)}"]
        return vault.read(run("ansible-vault", "view", *options, str(self.vault(name))).stdout)

    def put(self, name: str, **values: str) -> None:
        """Write values into the vault, as `ansible-vault edit` does."""
        options = ["--vault-id", f"{name}@{self.password(name)}"]
        run("ansible-vault", "decrypt", *options, str(self.vault(name)))
        self.vault(name).write_text(vault.edit(self.vault(name).read_text(), values))
        run("ansible-vault", "encrypt", *options, str(self.vault(name)))

    def full(self, name: str) -> None:
        """Fill the vault, what is given included."""
        self.play(name, ok=False)
        self.put(name, shop_smtp_password=f"{GIVEN}-{name}")


def run(tool: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(TOOLS / tool), *arguments],
        cwd=KIT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(KIT / "ansible.cfg"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def secret_texts(shop: Shop, name: str) -> set[str]:
    """All that must not be printed: values, and the vault's password."""
    texts = {text for text in vault.texts(shop.values(name)) if len(text) >= vault.SHORTEST}
    return texts | {shop.password(name).read_text().strip()}


# --- generating -------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_generated_each_of_its_kind_and_encrypted(shop: Shop) -> None:
    said = shop.play("production", ok=False)
    assert "Generated: release_fingerprint_key, shop_token, shop_cookie_key, shop_database_password." in said
    assert (
        "shop_smtp_password is given by others, and is not there. The provider's console shows it. "
        "Put it into the vault with `ansible-vault edit`."
    ) in said
    assert shop.vault().read_text().startswith("$ANSIBLE_VAULT;1.2;AES256;production\n")
    assert stat.S_IMODE(shop.vault().stat().st_mode) == 0o600
    values = shop.values()
    assert vault.is_of("hex32", values["shop_token"])
    assert vault.is_of("fernet", values["shop_cookie_key"])
    assert vault.is_of("password", values["shop_database_password"])
    assert "backend_jwt_secret" not in values, "the bundled backend is not deployed here"


def test_an_inventory_that_is_one_file_gets_a_folder_for_its_vault(shop: Shop) -> None:
    folder = shop.folder / "production"
    variables = yaml.safe_load((folder / "group_vars/all/main.yml").read_text())
    hosts = yaml.safe_load((folder / "hosts.yml").read_text())
    hosts.setdefault("all", {})["vars"] = variables
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    shutil.rmtree(folder / "group_vars")
    assert "Generated: " in shop.play("production", ok=False)
    assert vault.is_of("hex32", shop.values()["shop_token"])


def test_a_second_run_changes_nothing(shop: Shop) -> None:
    shop.full("production")
    before = shop.vault().read_bytes()
    assert "changed=0" in shop.play("production")
    assert shop.vault().read_bytes() == before
    shop.check("production")


def test_what_is_declared_later_is_added_and_the_rest_stays(shop: Shop) -> None:
    shop.full("production")
    before = shop.values()
    main = shop.folder / "production/group_vars/all/main.yml"
    main.write_text(main.read_text() + "  shop_other_key: key\n")
    assert "Generated: shop_other_key." in shop.play("production")
    assert shop.values() == before | {"shop_other_key": shop.values()["shop_other_key"]}


def test_check_mode_says_the_same_and_changes_nothing(shop: Shop) -> None:
    said = shop.play("production", "--check", ok=False)
    assert "Generated: release_fingerprint_key" in said
    assert not shop.vault().exists()
    assert not shop.password().parent.exists()
    shop.full("production")
    before = shop.vault().read_bytes()
    assert "Rotated: shop_token." in shop.play("production", "--check", "-e", "rotate=shop_token")
    assert shop.vault().read_bytes() == before


def test_nothing_else_is_left_beside_the_vault(shop: Shop) -> None:
    shop.full("production")
    shop.play("production", "-e", "rotate=shop_token")
    assert {path.name for path in shop.vault().parent.iterdir()} == {"main.yml", "vault.yml"}
    assert {path.name for path in shop.password().parent.iterdir()} == {"vault_password"}


# --- the password -----------------------------------------------------------------------------------------------------


def test_a_first_run_makes_a_password_for_its_owner_alone(shop: Shop) -> None:
    said = shop.play("production", ok=False)
    assert f"Made a password for the vault: {shop.password()}. Git ignores it, so keep a copy in a safe place" in said
    assert stat.S_IMODE(shop.password().stat().st_mode) == 0o600
    assert stat.S_IMODE(shop.password().parent.stat().st_mode) == 0o700


def test_without_the_password_one_sentence_says_where_to_put_it(shop: Shop) -> None:
    shop.full("production")
    shop.password().unlink()
    for playbook in (SECRETS, shop.contract):
        said = shop.play("production", playbook=playbook, ok=False)
        assert (
            "The vault of production is encrypted, and there is no password for it. Get it from whoever made the vault "
            f"and put it into {shop.password()}, or run the command with --vault-id production@FILE."
        ) in said


def test_with_a_wrong_password_one_sentence_says_so(shop: Shop) -> None:
    shop.full("production")
    before = shop.vault().read_bytes()
    shop.password().write_text("another one\n")
    said = shop.play("production", "-e", "rotate=shop_token", ok=False)
    assert (
        f"The vault of production cannot be opened with what {shop.password()} says. "
        "Put the right password there, or run the command with --vault-id production@FILE."
    ) in said
    assert "another one" not in said
    assert shop.vault().read_bytes() == before


def test_a_password_may_be_given_by_vault_id(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere"
    file.write_text("a password of my own\n")
    given = ("--vault-id", f"production@{file}")
    said = shop.play("production", *given, ok=False)
    assert "Made a password" not in said
    assert not shop.password().exists()
    assert "Rotated: shop_token." in shop.play("production", *given, "-e", "rotate=shop_token", ok=False)
    assert "Get it from whoever made the vault" in shop.play("production", ok=False)
    assert shop.vault().read_text().startswith("$ANSIBLE_VAULT;1.2;AES256;production\n")


def test_a_password_may_come_from_a_program(shop: Shop) -> None:
    client = shop.folder / "production" / vault.CLIENT
    client.parent.mkdir()
    client.write_text('#!/bin/sh\n[ "$1 $2" = "--vault-id production" ] && echo from-the-program\n')
    client.chmod(0o700)
    assert "Made a password" not in shop.play("production", ok=False)
    assert "Rotated: shop_token." in shop.play("production", "-e", "rotate=shop_token", ok=False)
    client.write_text("#!/bin/sh\necho it is locked >&2\nexit 2\n")
    said = shop.play("production", ok=False)
    assert f"The password of the vault of production cannot be had from {client}:" in said
    assert "it is locked" in said


def test_several_passwords_need_one_of_the_environments_name(shop: Shop, tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        file.write_text(f"{file.name} password\n")
    options = [text for file in files for text in ("--vault-id", f"{file.name}@{file}")]
    assert "Several vault passwords were given, and none is called production." in shop.play(
        "production", *options, ok=False
    )
    assert not shop.vault().exists()


# --- rotating and revoking --------------------------------------------------------------------------------------------


def test_a_rotation_changes_one_value_and_says_what_comes_next(shop: Shop) -> None:
    shop.full("production")
    before = shop.values()
    said = shop.play("production", "-e", "rotate=shop_token")
    after = shop.values()
    assert {name for name in after if after[name] != before.get(name)} == {"shop_token", vault.RETIRED}
    command = f"ansible-playbook -i {shop.folder / 'production'} playbooks"
    assert f"Rotated: shop_token. Next, deploy: {command}/deploy.yml" in said
    assert f"{command}/revoke.yml -e secret=api:env:API_TOKEN -e \"reason='…'\"" in said


def test_a_rotation_keeps_the_value_before_and_a_revocation_ends_it(shop: Shop) -> None:
    shop.full("production")
    old = shop.values()["shop_cookie_key"]
    said = shop.play("production", "-e", "rotate=shop_cookie_key,shop_database_password")
    assert "Rotated: shop_cookie_key. The older value stays valid as shop_cookie_key_previous." in said
    assert "Rotated: shop_database_password. Tell the database." in said
    assert shop.values()["shop_cookie_key_previous"] == old
    said = shop.play("production", "-e", "revoke=shop_cookie_key", "-e", "reason='was in a ticket'")
    assert "Revoked: the older values of shop_cookie_key." in said
    assert shop.values()["shop_cookie_key_previous"] == ""
    assert "changed=0" in shop.play("production", "-e", "revoke=shop_cookie_key")


def test_the_bundled_backend_takes_both_values_after_a_rotation(tmp_path: Path) -> None:
    staging, environments = tmp_path / "staging", Shop(tmp_path / "shop")
    shutil.copytree(KIT / "inventories/staging", staging, ignore=shutil.ignore_patterns(".secrets"))
    environments.folder = tmp_path
    environments.play("staging")
    old = environments.values("staging")["backend_jwt_secret"]
    said = environments.play("staging", "-e", "rotate=backend_jwt_secret")
    assert "The older value stays valid as backend_jwt_secret_previous." in said
    assert "'secret=backend:/app/config/environments/staging.json#auth.jwtSecret'" in said
    environments.check("staging")
    files = "{{ backend_services.backend.config_files | map(attribute='content') }}"
    tell = [
        {"import_role": {"name": "database", "tasks_from": "contract.yml"}},
        {"import_role": {"name": "backend"}},
        {"debug": {"msg": files}},
    ]
    load = [{"hosts": "app", "gather_facts": False, "tasks": tell}]
    playbook = tmp_path / "files.yml"
    playbook.write_text(yaml.safe_dump(load))
    shown = environments.play("staging", "-v", playbook=str(playbook))
    new = environments.values("staging")["backend_jwt_secret"]
    assert f'"jwtSecret": "{new}", "previousJwtSecret": "{old}"' in shown


def test_a_contract_that_is_wrong_does_not_keep_a_secret_from_being_rotated(shop: Shop) -> None:
    shop.full("production")
    assert "Rotated: shop_token." in shop.play("production", "-e", "rotate=shop_token", "-e", '{"app_services": []}')


def test_a_revoked_value_cannot_be_put_back(shop: Shop) -> None:
    shop.full("production")
    old = shop.values()["shop_token"]
    revoke = ("-e", "rotate=shop_token", "-e", "revoke=shop_token", "-e", "reason='was in a ticket'")
    shop.play("production", *revoke)
    shop.check("production")
    shop.put("production", shop_token=old)
    said = shop.check("production", "-vvv", ok=False)
    assert "shop_token has a value that was revoked (was in a ticket) and replaced on 20" in said
    assert f"{SECRETS} -e rotate=shop_token." in said
    assert old not in said
    shop.play("production", "-e", "rotate=shop_token")
    shop.check("production")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("rotate=shop_tokn",), "This environment declares no secret shop_tokn."),
        (("rotate=shop_smtp_password",), "shop_smtp_password is given by others, so no value is made for it."),
        (("revoke=shop_token",), "No older value of shop_token is known that could be revoked."),
        (('{"app_secrets": {"shop_token": "hex"}}',), "app_secrets is wrong: "),
    ],
)
def test_what_cannot_be_done_changes_nothing(options: tuple[str, ...], sentence: str, shop: Shop) -> None:
    shop.full("production")
    before = shop.vault().read_bytes()
    assert sentence in shop.play("production", *(text for one in options for text in ("-e", one)), ok=False)
    assert shop.vault().read_bytes() == before


def test_a_secret_that_is_not_of_its_kind_is_refused_and_not_told(shop: Shop) -> None:
    shop.full("production")
    shop.put("production", shop_token="too-short-and-no-number")
    said = shop.check("production", "-vvv", ok=False)
    assert "shop_token is not of its kind hex32: 64 hexadecimal digits." in said
    assert "too-short-and-no-number" not in said


# --- production's own -------------------------------------------------------------------------------------------------


@pytest.fixture
def both(shop: Shop) -> Shop:
    """Two environments with all their secrets."""
    for name in ("staging", "production"):
        shop.full(name)
        shop.check(name)
    return shop


def test_a_secret_of_production_in_another_environment_is_refused_from_both_sides(both: Shop) -> None:
    value = both.values()["shop_database_password"]
    both.put("staging", shop_database_password=value)
    said = both.check("production", "-vvv", ok=False)
    assert "shop_database_password of production stands in staging too." in said
    assert value not in said
    said = both.check("staging", "-vvv", ok=False)
    assert "staging has shop_database_password of production." in said
    assert value not in said


def test_it_is_found_inside_a_url_of_a_file_that_is_not_encrypted(both: Shop) -> None:
    value = both.values()["shop_database_password"]
    (both.folder / "staging/group_vars/all/app.yml").write_text(
        f"shop_url: postgresql://shop:{value}@db.example/shop\n"
    )
    for name in ("production", "staging"):
        said = both.check(name, "-vvv", ok=False)
        assert "A secret of production stands nowhere else" in said
        assert value not in said


def test_it_is_found_where_a_single_value_is_encrypted(both: Shop) -> None:
    value = both.values()["shop_database_password"]
    options = ["--vault-id", f"staging@{both.password('staging')}", "--name", "shop_hidden", value]
    encrypted = run("ansible-vault", "encrypt_string", *options).stdout
    (both.folder / "staging/group_vars/all/app.yml").write_text(encrypted)
    assert "shop_database_password of production stands in staging too." in both.check("production", ok=False)
    assert "staging has shop_database_password of production." in both.check("staging", ok=False)


def test_an_environment_that_cannot_be_opened_is_not_compared(both: Shop) -> None:
    both.put("staging", shop_database_password=both.values()["shop_database_password"])
    both.password("staging").unlink()
    both.check("production")


def test_environments_other_than_production_may_share(shop: Shop) -> None:
    shutil.copytree(shop.folder / "staging", shop.folder / "qa")
    main = shop.folder / "qa/group_vars/all/main.yml"
    main.write_text(OWN.format(name="qa", digest="2" * 64))
    for name in ("staging", "qa"):
        shop.full(name)
        shop.put(name, shop_smtp_password=GIVEN)
    shop.check("qa")
    shop.check("staging")


# --- files that are not encrypted -------------------------------------------------------------------------------------


def test_a_vault_in_plain_text_is_not_written(shop: Shop) -> None:
    shop.vault().write_text("shop_smtp_password: x\n")
    said = shop.play("production", ok=False)
    assert f"{shop.vault()} is not encrypted, so no secret is written into it. Encrypt it first:" in said
    assert shop.vault().read_text() == "shop_smtp_password: x\n"


def test_local_keeps_its_own_and_needs_no_vault(tmp_path: Path) -> None:
    local = tmp_path / "local"
    shutil.copytree(KIT / "inventories/local", local, ignore=shutil.ignore_patterns(".secrets", "*.lock.yml"))
    done = run("ansible-playbook", "-i", str(local), SECRETS)
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout
    assert {path.name for path in (local / ".secrets").iterdir()} == {"backend_jwt_secret", "release_fingerprint_key"}


def test_an_inventory_that_is_no_folder_has_no_vault() -> None:
    done = run("ansible-playbook", "-i", "app,", SECRETS)
    assert done.returncode != 0
    assert "The inventory is no folder, so there is no vault beside it." in done.stdout


# --- nothing is shown -------------------------------------------------------------------------------------------------


def outputs(shop: Shop) -> Iterator[str]:
    """What every way of running it prints with everything that Ansible can say."""
    wordy = ("-vvv", "--diff")
    yield shop.play("production", *wordy, ok=False)
    shop.put("production", shop_smtp_password=GIVEN)
    yield shop.play("production", *wordy)
    yield shop.play("production", *wordy, "--check", "-e", "rotate=shop_token")
    yield shop.check("production", *wordy)
    yield shop.check("production", *wordy, "-e", "slipway_environment=5")


def test_no_run_prints_a_secret_or_the_password(shop: Shop) -> None:
    said = list(outputs(shop))
    before = secret_texts(shop, "production")
    said.append(shop.play("production", "-vvvvv", "-e", "rotate=shop_token,shop_cookie_key"))
    said.append(shop.play("production", "-vvvvv", "-e", "revoke=shop_token,shop_cookie_key"))
    leaks = before | secret_texts(shop, "production")
    assert len(leaks) >= 8
    assert all(re.search("shop_token", text) for text in said[:1])
    assert not [secret for secret in leaks for text in said if secret in text]
