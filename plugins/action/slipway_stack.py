"""Thin front to `slipway stack`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction, diffs
from slipway.registries import logins_of


class ActionModule(EngineAction):
    """Keeps a stack of the kit's own as declared."""

    def call(self, given: Mapping[str, Any]) -> Answer:
        request = {option: value for option, value in given.items() if option != "registries"}
        logins = logins_of(given["registries"])
        answer = self.engine("stack", bare_is_fine=given["state"] != "present", **request, logins=logins)
        return {**answer, "diff": diffs(answer)}
