"""Thin front to `slipway archive`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction


class ActionModule(EngineAction):
    """Has a host back up to an archive."""

    def call(self, given: Mapping[str, Any]) -> Answer:
        request = {**given, "drill_day": given["drill_day"] or None}
        return self.engine("archive", **request)
