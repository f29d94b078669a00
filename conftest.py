"""What all tests share: the image of the bundled backend that was built last, and what may not run at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

LOCK = Path(__file__).parent / "inventories/local/images.lock.yml"
ENGINE = Path(__file__).parent / "tests/engine"
REPOSITORY = "127.0.0.1:5000/slipway/backend"


def pytest_configure() -> None:
    """Name the newest image, unless the caller names one; the tests that need it say what to do without."""
    if LOCK.exists():
        tags = yaml.safe_load(LOCK.read_text())["images"].get(REPOSITORY, {})
        if tags:
            os.environ.setdefault("SLIPWAY_BACKEND_IMAGE", f"{REPOSITORY}@{list(tags.values())[-1]}")


@pytest.hookimpl(tryfirst=True)  # before xdist names the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that deploy on this machine together, on one of the workers: it has one edge, and they change it."""
    for item in items:
        if item.get_closest_marker("docker") or ENGINE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("this machine"))
