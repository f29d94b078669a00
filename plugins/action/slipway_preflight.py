"""Thin front to `slipway preflight`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction
from slipway.registries import logins_of


class ActionModule(EngineAction):
    """Looks whether a deploy could go through, and pins its images."""

    def call(self, given: Mapping[str, Any]) -> Answer:
        request = {option: value for option, value in given.items() if option != "registries"}
        return self.engine("preflight", **request, logins=logins_of(given["registries"]), now=time.time())
