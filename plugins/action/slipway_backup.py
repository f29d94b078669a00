"""Thin front to `slipway backup` and `slipway drill`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction


class ActionModule(EngineAction):
    """Backs up, or restores a backup where nobody is served."""

    def call(self, given: Mapping[str, Any]) -> Answer:
        arguments = [f"--{option}={given[option]}" for option in ("name", "run", "by", "wait")]
        if given["state"] == "drilled":
            return self.engine("drill", *arguments, "--", given["backup"])
        return self.engine("backup", *arguments)
