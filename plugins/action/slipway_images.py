"""Thin front to `slipway images`, which packs every image's folder first."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible.errors import AnsibleActionFail

from plugins.engine import Answer, EngineAction
from slipway.registries import logins_of
from slipway.source import SourceError, pack

PASSED_ON = ("repository", "dockerfile", "build_args", "secrets", "push")


class ActionModule(EngineAction):
    """Sends what `context` and `version_file`, paths on the controller, hold."""

    def call(self, given: Mapping[str, Any]) -> Answer:
        base = {option: given[f"base_{option}"] for option in ("image", "suite", "max_age_days", "recipe")}
        images = [
            {**{field: image[field] for field in PASSED_ON}, "source": _packed(image)} for image in given["images"]
        ]
        absent = given["state"] == "absent"
        logins = logins_of(given["registries"])
        return self.engine("images", bare_is_fine=absent, state=given["state"], base=base, images=images, logins=logins)


def _packed(image: Mapping[str, Any]) -> dict[str, Any]:
    version_file = image["version_file"]
    try:
        version = _version(Path(version_file)) if version_file else None
        return pack(Path(image["context"]), dockerfile=image["dockerfile"], version=version)
    except SourceError as error:
        raise AnsibleActionFail(str(error)) from error


def _version(file: Path) -> str:
    """`project.version` of a pyproject.toml."""
    try:
        return str(tomllib.loads(file.read_text())["project"]["version"])
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise SourceError(
            f"{file} states no project.version ({type(error).__name__}: {error}). Correct version_file or that file."
        ) from error
