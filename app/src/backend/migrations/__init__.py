"""The revisions of the schema. They lie inside the package, so that `backend migrate` works from a wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent


def head() -> str:
    """The newest revision that this release brings; told from file names, so that serving need not import Alembic."""
    return max(path.name.split("_", 1)[0] for path in (HERE / "versions").glob("[0-9]*.py"))
