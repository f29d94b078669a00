"""Opens the vault of the environment that a playbook is run for, and says in a sentence why it cannot."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slipway_vault
short_description: Opens an environment's vault with the password that lies beside its inventory
description:
  - Before C(group_vars/all/vault.yml) of an inventory is read, takes the vault's password from the inventory's
    C(.secrets/vault_password), or from what its program C(.secrets/vault-client) prints, as the vault id that the
    inventory's folder is called. What was given by C(--vault-id) comes first.
  - Only the environment of the inventory at hand is looked at. It gives no variables.
"""

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.parsing.vault import VaultLib, VaultSecretsContext, get_file_vault_secret, is_encrypted
from ansible.plugins.vars import BaseVarsPlugin

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from slipway import vault
from slipway.errors import SlipwayError

DONE: set[str] = set()
"""Folders that were looked at: Ansible asks for each host and group, and each play anew."""


class VarsModule(BaseVarsPlugin):  # type: ignore[misc]  # ansible ships no types
    """Called before the variables of a group or a host are read from the folder of an inventory."""

    def get_vars(self, loader: Any, path: str, entities: Any) -> dict[str, Any]:
        """Give no variables, and have the vault opened."""
        super().get_vars(loader, path, entities)
        if path not in DONE:
            try:
                self._open(loader, Path(path).resolve())
            except SlipwayError as error:
                raise AnsibleParserError(str(error)) from error
            DONE.add(path)
        return {}

    def _open(self, loader: Any, environment: Path) -> None:
        known = VaultSecretsContext.current().secrets
        source = vault.password_source(environment)
        if source and environment.name not in [name for name, _ in known]:
            try:
                secret = get_file_vault_secret(filename=str(source), vault_id=environment.name, loader=loader)
                secret.load()
            except AnsibleError as error:
                raise vault.unreadable_password(environment, source, str(error)) from error
            # The list is the loader's as well.
            known.append((environment.name, secret))
        file = environment / vault.VAULT
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return
        if not is_encrypted(content):
            return
        if not known:
            raise vault.no_password(environment)
        try:
            VaultLib(known).decrypt(content)
        except AnsibleError as error:
            raise vault.wrong_password(environment, source) from error
