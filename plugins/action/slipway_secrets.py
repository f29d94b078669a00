"""Generates, rotates, revokes and checks the secrets of an environment, on the controller.

It decrypts and encrypts with Ansible's own vault, in memory. Nothing that it returns holds a value.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecretsContext, get_file_vault_secret, is_encrypted
from ansible.plugins.action import ActionBase

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from slipway import vault
from slipway.errors import PreflightError, SlipwayError

LOCAL_SECRETS = ".secrets"
"""Where an environment without a vault keeps one file for each secret."""

Secrets = list[tuple[str, Any]]
"""Vault id and password, as Ansible has them."""


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible ships no types
    """See plugins/modules/slipway_secrets.py."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(
            {
                "state": {"type": "str", "choices": ["present", "checked"], "default": "present"},
                "declared": {"type": "dict", "required": True},
                "kit": {"type": "dict", "default": {}},
                "bundled": {"type": "dict", "default": {}},
                "rotate": {"type": "list", "elements": "str", "default": []},
                "revoke": {"type": "list", "elements": "str", "default": []},
                "reason": {"type": "str", "default": ""},
            }
        )
        try:
            environment = Environment(self, task_vars or {}, plain(given))
            return environment.check() if given["state"] == "checked" else environment.fill()
        except SlipwayError as error:
            raise AnsibleActionFail(str(error)) from error

    @property
    def checking(self) -> bool:
        """Whether nothing may be changed."""
        return bool(self._task.check_mode)

    @property
    def loader(self) -> Any:
        """Ansible's reader of files."""
        return self._loader

    def value(self, expression: Any) -> Any:
        """What a variable comes to, as plain data; None where it is made of something that is not there."""
        try:
            return plain(self._templar.template(expression))
        except AnsibleError:
            return None


class Environment:
    """The inventory at hand with its vault."""

    def __init__(self, action: ActionModule, variables: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        folder = Path(str(variables.get("inventory_dir")))
        if not folder.is_dir():
            raise PreflightError(
                "The inventory is no folder, so there is no vault beside it.", "Name one: -i inventories/production."
            )
        self._action, self._variables, self._given = action, variables, given
        self._folder = folder.resolve()
        self._file = self._folder / vault.VAULT
        self._command = f"ansible-playbook -i {shlex.quote(vault.shown(self._folder))}"
        own = vault.declared(given["declared"])
        self._checked = set(own)
        self._want = vault.declared(given["kit"]) | own
        if vault.uses_bundled_backend(variables.get("app_services")):
            self._want = vault.declared(given["bundled"]) | self._want

    # --- checking --------------------------------------------------------------------------------------------------

    def check(self) -> dict[str, Any]:
        """Fail where a secret is missing, of a wrong form, revoked, or shared with production."""
        names = [*self._want, *(one.previous for one in self._want.values() if one.previous)]
        values = {name: self._value(name) for name in names}
        problems = vault.problems(
            self._want,
            values,
            vault.retired({vault.RETIRED: self._action.value(self._variables.get(vault.RETIRED))}),
            checked=self._checked,
            command=f"{self._command} playbooks/secrets.yml",
        )
        others = dict(self._others())
        problems += self._shared(values, others)
        if problems:
            raise AnsibleActionFail(" ".join(problems))
        return {"changed": False, "compared": sorted(others)}

    def _shared(self, values: Mapping[str, str], others: Mapping[str, Other]) -> Iterator[str]:
        rotate = f"{self._command} playbooks/secrets.yml -e rotate="
        if self._is_production:
            there = {name: other.texts for name, other in others.items()}
            for name, environments in vault.shared(values, there).items():
                yield (
                    f"{name} of {self._folder.name} stands in {vault.listed(environments)} too. "
                    f"A secret of production stands nowhere else: rotate it, {rotate}{name}."
                )
            return
        production = {name: other for name, other in others.items() if other.production}
        if not production:
            return
        own = Other(self._folder, VaultLib(VaultSecretsContext.current().secrets))
        for environment, other in production.items():
            for name in vault.shared(other.secrets, {self._folder.name: own.texts}):
                yield (
                    f"{self._folder.name} has {name} of {environment}. "
                    f"A secret of production stands nowhere else: give this environment one of its own."
                )

    def _value(self, name: str) -> str:
        """The value that the inventory has of a secret, from whatever file; empty where it has none."""
        found = self._action.value(self._variables[name]) if name in self._variables else None
        return "" if found is None else str(found)

    @property
    def _is_production(self) -> bool:
        return str(self._action.value(self._variables.get("slipway_environment"))) == vault.PRODUCTION

    def _others(self) -> Iterator[tuple[str, Other]]:
        """The environments beside this one that can be opened."""
        for folder in sorted(self._folder.parent.iterdir()):
            known: Secrets = list(VaultSecretsContext.current().secrets)
            # What cannot be opened is not compared: nobody needs the password of every environment.
            with suppress(AnsibleError, SlipwayError, OSError, UnicodeError):
                if folder == self._folder or not (folder / "group_vars").is_dir():
                    continue
                if source := vault.password_source(folder):
                    known.append((folder.name, self._secret(source, folder.name)))
                yield folder.name, Other(folder, VaultLib(known))

    def _secret(self, source: Path, name: str) -> Any:
        secret = get_file_vault_secret(filename=str(source), vault_id=name, loader=self._action.loader)
        secret.load()
        return secret

    # --- changing --------------------------------------------------------------------------------------------------

    def fill(self) -> dict[str, Any]:
        """Generate what is missing, rotate and revoke what is named, and write the vault where that changes it."""
        content = self._file.read_bytes() if self._file.exists() else b""
        encrypted = is_encrypted(content)
        known: Secrets = list(VaultSecretsContext.current().secrets)
        password = None
        if encrypted:
            text_, _, password = VaultLib(known).decrypt_and_get_vault_id(content)
            text = bytes(text_).decode()
        else:
            text = content.decode()
        have = vault.read(text)
        plain_values = bool(have) and not encrypted
        todo = vault.plan(
            self._want,
            {} if plain_values else have,
            elsewhere={name for name in self._want if self._value(name) and (plain_values or name not in have)},
            rotate=self._given["rotate"],
            revoke=self._given["revoke"],
        )
        said = []
        if todo.changes:
            if plain_values:
                raise PreflightError(
                    f"{vault.shown(self._file)} is not encrypted, so no secret is written into it.",
                    f"Encrypt it first: ansible-vault encrypt --vault-id {self._folder.name}@FILE "
                    f"{vault.shown(self._file)}.",
                )
            fresh = vault.changes(
                todo,
                self._want,
                have,
                at=datetime.now(UTC).isoformat(timespec="seconds"),
                reason=self._given["reason"],
            )
            text = vault.edit(text, fresh)
            if password is None:
                password, made = self._password(known)
                said += made
            if not self._action.checking:
                written = VaultLib().encrypt(text, secret=password, vault_id=self._folder.name)
                write(self._file, written)
        said += self._said(todo)
        result = {
            "changed": todo.changes,
            "generated": todo.generate,
            "rotated": todo.rotate,
            "revoked": todo.revoke,
            "msg": "\n".join(said),
        }
        if todo.missing:
            sentences = [vault.given(name, self._want[name]) for name in todo.missing]
            result |= {"failed": True, "msg": "\n".join([*said, *sentences])}
        return result

    def _password(self, known: Secrets) -> tuple[Any, list[str]]:
        """The password to encrypt a new vault with, and what is to be said of it. Made where there is none."""
        own = [secret for name, secret in known if name == self._folder.name] or [secret for _, secret in known]
        if len(own) > 1:
            raise PreflightError(
                f"Several vault passwords were given, and none is called {self._folder.name}.",
                f"Say which one it is: --vault-id {self._folder.name}@FILE.",
            )
        if own:
            return own[0], []
        file = self._folder / vault.PASSWORD
        said = [
            f"Made a password for the vault: {vault.shown(file)}. Git ignores it, so keep a copy in a safe place and "
            "give it to those who deploy; without it the vault cannot be opened."
        ]
        if self._action.checking:
            return None, said
        if not file.parent.exists():
            file.parent.mkdir(mode=0o700)
            own_like(file.parent, self._folder)
        write(file, f"{secrets.token_urlsafe(48)}\n".encode())
        return self._secret(file, self._folder.name), said

    def _said(self, todo: vault.Plan) -> list[str]:
        said = []
        if todo.generate:
            said.append(f"Generated: {', '.join(todo.generate)}.")
        for name in todo.rotate:
            one = self._want[name]
            old = f" The older value stays valid as {one.previous}." if one.previous and name not in todo.revoke else ""
            said.append(f"Rotated: {name}.{old}{f' {one.note}' if one.note else ''}")
        if todo.revoke:
            said.append(f"Revoked: the older values of {', '.join(todo.revoke)}.")
        if todo.rotate or todo.revoke:
            said.append(f"Next, deploy: {self._command} playbooks/deploy.yml")
            if places := ",".join(self._places(todo)):
                said.append(
                    "Then, if an older value leaked, have no rollback bring it back: "
                    f"{self._command} playbooks/revoke.yml -e {shlex.quote(f'secret={places}')} -e \"reason='…'\""
                )
        return said

    def _places(self, todo: vault.Plan) -> list[str]:
        """What the hosts call the values that were replaced."""
        services = self._action.value(self._variables.get("app_services"))
        replaced = {self._value(name) for name in [*todo.rotate, *todo.revoke]}
        # A contract that is wrong is told by the deploy that comes next.
        with suppress(msgspec.ValidationError):
            return sorted({place for value in replaced if value for place in vault.places(services, value)})
        return []


class Other:
    """The files of an inventory, read as they stand. Raises what reading and decrypting them raises."""

    def __init__(self, folder: Path, lib: VaultLib) -> None:
        files = {
            path: vault.read(_opened(path.read_bytes(), lib))
            for part in ("group_vars", "host_vars")
            for path in sorted((folder / part).rglob("*"))
            if path.is_file() and path.suffix in ("", ".yml", ".yaml", ".json") and not path.name.startswith(".")
        }
        own = files.get(folder / vault.VAULT, {})
        self.secrets = {name: _opened(value.encode(), lib) for name, value in own.items() if isinstance(value, str)}
        stated = next((data["slipway_environment"] for data in files.values() if "slipway_environment" in data), "")
        self.production = (stated or folder.name) == vault.PRODUCTION
        # A single value may be encrypted too, in a file that is not.
        self.texts = {_opened(text.encode(), lib) for data in files.values() for text in vault.texts(data)}
        kept = (folder / LOCAL_SECRETS).iterdir() if (folder / LOCAL_SECRETS).is_dir() else []
        opens = {folder / vault.PASSWORD, folder / vault.CLIENT}
        self.texts |= {path.read_text().strip() for path in kept if path.is_file() and path not in opens}


def _opened(content: bytes, lib: VaultLib) -> str:
    return bytes(lib.decrypt(content) if is_encrypted(content) else content).decode()


def write(path: Path, content: bytes) -> None:
    """Replace a file at once, readable for its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(handle)
            own_like(beside, path.parent)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def own_like(path: Path, folder: Path) -> None:
    """Give a new file or folder to whom the folder around it belongs, so that whoever typed sudo keeps it."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def plain(data: Any) -> Any:
    """Copy Ansible's lazy, tagged containers into dicts, lists and strings that other libraries understand."""
    match data:
        case Mapping():
            return {str(key): plain(value) for key, value in data.items()}
        case list() | tuple():
            return [plain(value) for value in data]
        case bool() | None:
            return data
        case _:
            # Ansible's own kinds of text and number would not do for others.
            return next((kind(data) for kind in (str, int, float) if isinstance(data, kind)), data)
