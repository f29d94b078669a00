"""Thin front to `slipway maintenance`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction


class ActionModule(EngineAction):
    """Keeps users out, or lets them in again."""

    def call(self, given: Mapping[str, Any]) -> Answer:
        arguments = [f"--{option}={given[option]}" for option in ("name", "run", "by", "reason")]
        wanted = "on" if given["maintenance"] else "off"
        return self.engine("maintenance", *arguments, f"--retry-after={given['retry_after']}", wanted)
