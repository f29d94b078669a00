"""What all tests share: the image of the bundled backend that was built last, and what may not run at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from xdist.scheduler import LoadScopeScheduling

LOCK = Path(__file__).parent / "inventories/local/images.lock.yml"
ON_THIS_MACHINE = ("tests/conformance/", "tests/engine/", "tests/test_bad_input.py", "app/tests/test_image.py")
REPOSITORY = "127.0.0.1:5000/slipway/backend"


def pytest_configure() -> None:
    """Name the newest image, unless the caller names one; the tests that need it say what to do without."""
    if LOCK.exists():
        tags = yaml.safe_load(LOCK.read_text())["images"].get(REPOSITORY, {})
        if tags:
            os.environ.setdefault("SLIPWAY_BACKEND_IMAGE", f"{REPOSITORY}@{list(tags.values())[-1]}")


class OneMachine(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """A file where there is room, but those that deploy on this machine on one worker: it has one edge.

    A scenario of molecule takes minutes, so each is by itself, and all begin early, as their folder comes first.

    The marks that xdist itself has for groups get lost with this version of pytest.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(ON_THIS_MACHINE):
            return "this machine"
        return nodeid if nodeid.startswith("tests/molecule/") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneMachine:
    """Hand tests out so, in their order."""
    config.option.loadscopereorder = False
    return OneMachine(config, log)
