"""Commands that the lab runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from slipway.errors import SlipwayError

Given = TypeVar("Given")
Got = TypeVar("Got")

KIT = Path(__file__).parents[1]
PATIENCE = 300.0
"""Seconds after which a command counts as hanging."""


def out(*command: str, stdin: str = "", env: Mapping[str, str] | None = None, patience: float = PATIENCE) -> str:
    """What a command prints. Raises SlipwayError, with all that it said, where it fails or hangs."""
    try:
        done = subprocess.run(
            command,
            cwd=KIT,
            env={**os.environ, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
        )
    except FileNotFoundError:
        raise SlipwayError(f"There is no program {command[0]} here.", "Install it.") from None
    except subprocess.TimeoutExpired:
        raise SlipwayError(f"`{' '.join(command)}` took more than {patience:g} s.", "See what it waits for.") from None
    if done.returncode:
        raise SlipwayError(
            f"`{' '.join(command)}` ended with {done.returncode}.",
            "It said why.",
            details=f"{done.stdout}{done.stderr}".strip(),
        )
    return done.stdout


def play(*arguments: str) -> None:
    """Run a playbook of the kit, as root, with what it prints on stderr. Raises SlipwayError where it fails."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, *arguments]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if subprocess.run(command, cwd=KIT, env=environment, stdout=sys.stderr, check=False).returncode:
        raise SlipwayError(f"`{' '.join(command)}` failed.", "It said why above.")


def play_here(*arguments: str) -> None:
    """Run a playbook on this machine."""
    play("-i", "inventories/local", "-e", "ansible_become=false", *arguments)


def at_once(act: Callable[[Given], Got], things: Iterable[Given]) -> list[Got]:
    """Do it to all of them at the same time; gives the answers in their order, or raises the first error."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(act, things))


@contextlib.contextmanager
def alone(task: str) -> Iterator[None]:
    """Do a task while no other lab on this machine is at it."""
    with (Path(tempfile.gettempdir()) / f"slipway-lab-{task}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    """Tell the operator what is being done."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
