"""Commands that a measurement runs."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def out(*command: str, env: Mapping[str, str] | None = None) -> str:
    """What a command prints. One that fails ends the bench with what it said."""
    ran = subprocess.run(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise SystemExit(f"`{' '.join(command)}` ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def attempt(command: Sequence[str], *, stdin: str = "", env: Mapping[str, str] | None = None) -> None:
    """Remove something that may not be there."""
    with contextlib.suppress(OSError):
        subprocess.run(command, cwd=ROOT, env=env, input=stdin, capture_output=True, text=True, check=False)


def timed(act: Callable[..., object], *arguments: object) -> float:
    """Seconds that an act takes."""
    began = time.monotonic()
    act(*arguments)
    return time.monotonic() - began


def step(text: str) -> None:
    """Say what is being done."""
    sys.stderr.write(f"… {text}\n")
    sys.stderr.flush()
