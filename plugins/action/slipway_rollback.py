"""Thin front to `slipway rollback`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction


class ActionModule(EngineAction):
    """Has an older release serve again."""

    def call(self, given: Mapping[str, Any]) -> Answer:
        arguments = [f"--{option}={given[option]}" for option in ("name", "run", "by", "wait", "pool")]
        arguments += [f"--soak={given['soak_seconds']}", f"--confirm-data-loss={given['confirm_data_loss']}"]
        answer = self.engine("rollback", *arguments, "--", given["release"])
        # Worth a line before anything is switched, and not again after.
        said = {"msg": answer["said"]} if self.check and "said" in answer else {}
        return {**answer, **said}
