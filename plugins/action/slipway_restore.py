"""Thin front to `slipway restore`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.inventory.manager import InventoryManager
from ansible.template import Templar
from ansible.vars.manager import VariableManager

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction
from plugins.filter.slipway import plain

STEPS = {"chosen": "choose", "closed": "close", "restored": "all", "opened": "open"}
TARGET = {
    "url": "backup_target",
    "password": "backup_password",
    "access_key": "backup_access_key",
    "secret_key": "backup_secret_key",
    "region": "backup_region",
    "ssh_key": "backup_ssh_key",
    "known_hosts": "backup_known_hosts",
    "ca": "backup_ca",
}
"""What the engine calls it -> the variable of an inventory."""


class ActionModule(EngineAction):
    """Puts a backup in the place of the live data."""

    def run(self, tmp: str | None = None, task_vars: dict[str, object] | None = None) -> Answer:
        self._folder = Path(str((task_vars or {}).get("inventory_dir", "")))
        return super().run(tmp, task_vars)

    def call(self, given: Mapping[str, Any]) -> Answer:
        arguments = [
            f"--{option}={given[option]}"
            for option in ("name", "run", "by", "wait", "backup", "to", "beside", "release")
        ]
        arguments += [f"--confirm-data-loss={given['confirm_data_loss']}", f"--step={STEPS[given['step']]}"]
        flags = {
            "--no-keep": not given["keep"],
            "--no-database": not given["database"],
            "--stay-closed": given["stay_closed"],
            "--as-it-is": given["as_it_is"],
        }
        arguments += [flag for flag, wanted in flags.items() if wanted]
        if not given["source"] or given["step"] in ("closed", "opened"):
            return self.engine("restore", *arguments)
        return self.engine("restore", *arguments, "--source", **self._source(given["source"]))

    def _source(self, environment: str) -> dict[str, Any]:
        """Another environment and its archive, from its inventory beside this one. It holds secrets."""
        folder = self._folder.parent / environment
        if folder == self._folder or not (folder / "hosts.yml").is_file():
            raise AnsibleActionFail(
                f"There is no environment {environment} beside this one. Name a folder beside {self._folder.name}, "
                "with its hosts.yml."
            )
        inventory = InventoryManager(loader=self._loader, sources=[str(folder)])
        manager = VariableManager(loader=self._loader, inventory=inventory)
        hosts = inventory.get_hosts("app")
        if not hosts:
            raise AnsibleActionFail(f"The environment {environment} has no host in the group app. Put one there.")
        variables = manager.get_vars(host=hosts[0], include_hostvars=False)
        templar = Templar(loader=self._loader, variables=variables)
        wanted = {key: variables.get(variable, "") for key, variable in TARGET.items()}
        target = {key: value for key, value in plain(templar.template(wanted)).items() if value}
        if "url" not in target or "password" not in target:
            raise AnsibleActionFail(
                f"The environment {environment} has no archive: its inventory lacks backup_target or backup_password. "
                "Set them there, and back it up first."
            )
        name = str(plain(templar.template(variables["slipway_name"])))
        return {"name": name, "host": str(hosts[0].name), "target": target}
