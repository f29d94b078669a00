"""The controller's half of the module slipway_images: pack every image's folder, then run the module with it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from slipway.source import SourceError, pack


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible ships no types
    """Replaces `context` and `version_file`, paths on the controller, by `source`, what they hold."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, object] | None = None) -> dict[str, object]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        arguments["images"] = [self._packed(dict(image)) for image in arguments.get("images") or []]
        result: dict[str, object] = self._execute_module(
            module_name="slipway_images", module_args=arguments, task_vars=task_vars
        )
        return result

    def _packed(self, image: dict[str, object]) -> dict[str, object]:
        context = Path(str(image.pop("context", "")))
        version_file = str(image.pop("version_file", "") or "")
        try:
            version = _version(Path(version_file)) if version_file else None
            image["source"] = pack(context, dockerfile=str(image.get("dockerfile") or "Dockerfile"), version=version)
        except SourceError as error:
            raise AnsibleActionFail(str(error)) from error
        return image


def _version(file: Path) -> str:
    """`project.version` of a pyproject.toml."""
    try:
        return str(tomllib.loads(file.read_text())["project"]["version"])
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise SourceError(
            f"{file} states no project.version ({type(error).__name__}: {error}). Correct version_file or that file."
        ) from error
