"""Thin front to `slipway drain`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction


class ActionModule(EngineAction):
    """Sends an app host no more requests, or some again."""

    def call(self, given: Mapping[str, Any]) -> Answer:
        arguments = [f"--{option}={given[option]}" for option in ("name", "by", "reason")]
        forced = ["--force"] if given["force"] else []
        return self.engine("drain", *arguments, *forced, "--", given["host"], "on" if given["drained"] else "off")
