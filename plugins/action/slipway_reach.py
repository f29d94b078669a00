"""Thin front to `slipway reach`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction

ASKED = ("host", "port", "name", "user", "password", "owner", "owner_password", "tls")


class ActionModule(EngineAction):
    """Looks whether the database can be used from a host."""

    def call(self, given: Mapping[str, Any]) -> Answer:
        reached = {key: given["connection"][key] for key in ASKED}
        answer = self.engine(
            "reach",
            **reached,
            **{option: given[option] for option in ("ca", "version", "extensions", "bundled")},
        )
        # Without an engine, in check mode, nothing is to be changed either.
        return {**answer, "changed": False}
