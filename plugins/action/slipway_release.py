"""Thin front to `slipway hold`, `stage`, `migrate`, `activate`, `return`, `verify`, `stop` and `destroy`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.engine import Answer, EngineAction
from slipway.registries import logins_of

VERBS = {
    "held": "hold",
    "staged": "stage",
    "migrated": "migrate",
    "active": "activate",
    "returned": "return",
    "verified": "verify",
    "stopped": "stop",
    "absent": "destroy",
}
ON_RELEASE = ("migrated", "active", "returned", "verified")
TAKES = {
    "staged": {
        "pool": "pool",
        "allow_unsafe": "allow_unsafe",
        "migrates": "migrates",
        "migrates_on": "migrates_on",
        "take_over": "take_over",
    },
    "migrated": {"allow_unsafe": "allow_unsafe", "pending": "pending"},
    "active": {"migrate": "migrate", "schema": "schema", "soak": "terms", "keep": "keep"},
    "returned": {"previous": "previous", "reason": "reason"},
    "verified": {"keep": "keep"},
}
"""Options that go with a state, and what the engine calls them."""


class ActionModule(EngineAction):
    """Brings a release to a host, step by step."""

    required_if = (("state", "staged", ["release", "contents"]), *(("state", state, ["id"]) for state in ON_RELEASE))

    def call(self, given: Mapping[str, Any]) -> Answer:
        state = given["state"]
        request: dict[str, Any] = {field: given[field] for field in ("run", "by", "fence", "wait", "lease")}
        request.update({name: given[option] for option, name in TAKES.get(state, {}).items()})
        if state == "staged":
            request["logins"] = logins_of(given["registries"])
        else:
            request["name"] = given["name"]
        if state in ("held", "staged") and given["release"]:
            files = [{**file, "content": given["contents"][file["path"]]} for file in given["release"]["files"]]
            request["release"] = {**given["release"], "files": files}
        if state in ON_RELEASE:
            request["release"] = given["id"]
        return self.engine(VERBS[state], bare_is_fine=state in ("stopped", "absent"), **request)
