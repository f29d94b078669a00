"""The linters, each a test, so that a warning fails the run like anything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KIT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent

LINTERS = {
    "ruff finds nothing": ["ruff", "check", "."],
    "ruff would format nothing": ["ruff", "format", "--check", "."],
    "mypy, strict, finds nothing in the kit": ["mypy"],
    "mypy, strict, finds nothing in the backend": ["mypy", "--config-file", "app/pyproject.toml"],
    "yamllint finds nothing": ["yamllint", "--strict", "."],
    "ansible-lint, profile production, finds nothing": ["ansible-lint", "--profile", "production", "--strict", "-q"],
}


@pytest.mark.parametrize("command", LINTERS.values(), ids=LINTERS)
def test_that(command: list[str]) -> None:
    tool, *arguments = command
    # ansible-lint calls ansible-playbook, which lies beside it.
    environment = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}", "NO_COLOR": "1"}
    done = subprocess.run(
        [TOOLS / tool, *arguments], cwd=KIT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{tool} says:\n{done.stdout}\n{done.stderr}"
