"""Thin front to `slipway front`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction


class ActionModule(EngineAction):
    """Balances an environment over its app hosts."""

    required_if = (("state", "present", ["front", "hosts"]),)

    def call(self, given: Mapping[str, Any]) -> Answer:
        absent = given["state"] == "absent"
        told = {} if absent else {field: given["front"][field] for field in ("services", "fingerprints")}
        answer = self.engine(
            "front",
            bare_is_fine=absent,
            name=given["name"],
            certificates=given["certificates"],
            hosts=given["hosts"] or {},
            state=given["state"],
            **told,
        )
        diff = [
            {
                "before_header": file["path"],
                "after_header": file["path"],
                "before": file["before"],
                "after": file["after"],
            }
            for file in answer.pop("diff", [])
        ]
        return {**answer, "diff": diff}
