"""Thin front to `slipway database`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction, diffs
from slipway.registries import logins_of

NEEDED = ("compose", "image", "version", "database", "passwords", "address")
RUNS = ("present", "upgraded")
VERBS = {"backed_up": "database-backup", "restored": "database-restore"}


class ActionModule(EngineAction):
    """Keeps the bundled PostgreSQL of an environment as declared."""

    required_if = (*(("state", state, [*NEEDED]) for state in RUNS), ("state", "restored", ["to"]))

    def call(self, given: Mapping[str, Any]) -> Answer:
        if verb := VERBS.get(given["state"]):
            to = {"to": given["to"]} if given["state"] == "restored" else {}
            return self.engine(verb, name=given["name"], **to)
        request = {option: value for option, value in given.items() if option not in ("registries", "to")}
        request["archive"] = given["archive"] if given["archive"].get("url") else None
        request["settings"] = {name: str(value) for name, value in given["settings"].items()}
        request["logins"] = logins_of(given["registries"])
        verb = "database"
        if given["state"] == "upgraded":
            verb, request["state"] = "upgrade", "present"
        answer = self.engine(verb, bare_is_fine=given["state"] not in RUNS, **request)
        return {**answer, "diff": diffs(answer)}
