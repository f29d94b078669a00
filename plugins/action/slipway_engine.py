"""Installs the engine on a host, in one call that has on stdin what was packed: it is written down once."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction, become_refused

PROGRAM = Path(__file__).parents[2] / "roles/slipway/files/install-engine"


class ActionModule(EngineAction):
    """Ships the engine, and makes it the one in use."""

    def call(self, given: Mapping[str, Any]) -> Answer:
        if self.check:
            return {"changed": True, "msg": f"Would install the engine {given['key']} and the program slipway."}
        stamp = datetime.now(UTC).strftime("%Y%m%d%H%M%S%f")
        command = ["sh", "-c", PROGRAM.read_text(), PROGRAM.name, given["python"], given["key"], stamp]
        with become_refused():
            done = self._low_level_execute_command(shlex.join(command), in_data=Path(given["packed"]).read_bytes())
        if done["rc"]:
            raise AnsibleActionFail(
                f"The engine could not be installed with {given['python']}, and what was there before stays. "
                "Mend what its last words below tell, and run the play again.",
                result={"rc": done["rc"], "details": done["stderr"]},
            )
        return {"changed": True, "first": done["stdout"].strip().endswith("first")}
