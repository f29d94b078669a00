"""Thin front to `slipway fetch`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction
from slipway.registries import logins_of


class ActionModule(EngineAction):
    """Begins to pull images."""

    def call(self, given: Mapping[str, Any]) -> Answer:
        return self.engine("fetch", images=given["images"], logins=logins_of(given["registries"]))
