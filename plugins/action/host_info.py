"""Runs the module of the same name, and adds how the controller has reached the host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.look import LookAction


class ActionModule(LookAction):
    """Looks at a host."""

    def run(self, tmp: str | None = None, task_vars: dict[str, object] | None = None) -> dict[str, Any]:
        reached = {"over_ssh": self._connection.transport == "ssh", "login": self._get_remote_user() or ""}
        # Nothing of it is needed to know that a machine that was not logged in to is left alone.
        return super().run(tmp, task_vars) | reached
