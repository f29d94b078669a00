"""What the kit gives to the tests of the bundled backend: the image that it built last."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

LOCK = Path(__file__).parent / "inventories/local/images.lock.yml"
REPOSITORY = "127.0.0.1:5000/slipway/backend"


def pytest_configure() -> None:
    """Name the newest image, unless the caller names one; the tests that need it say what to do without."""
    if LOCK.exists():
        tags = yaml.safe_load(LOCK.read_text())["images"].get(REPOSITORY, {})
        if tags:
            os.environ.setdefault("SLIPWAY_BACKEND_IMAGE", f"{REPOSITORY}@{list(tags.values())[-1]}")
