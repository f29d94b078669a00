"""Which version this is: what the image was tagged with, or what the package metadata says."""

from __future__ import annotations

import os
from importlib.metadata import version as package_version


def version() -> str:
    """`<version>-build.<n>` in an image (its build bakes BACKEND_VERSION), the package's version elsewhere."""
    return os.environ.get("BACKEND_VERSION") or package_version("backend")
