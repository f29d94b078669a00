"""What Compose reads out of a release's Compose file, as data.

The engine brings no YAML parser of its own: Compose's reading is the one that counts. A `docker` process is started
directly, which takes a tenth of a second less than importing python-on-whales first.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from slipway.errors import PreflightError
from slipway.release import COMPOSE_FILE

PATIENCE = 20.0
"""Seconds for one reading. It asks nobody but the file system."""


def read_folder(folder: Path) -> dict[str, Any]:
    """The document of a release folder, jobs included, with the host's variables (`.env`) filled in and paths absolute.

    Raises :class:`PreflightError` when Compose does not accept it.
    """
    with reading_folder(folder) as document:
        return document()


@contextmanager
def reading_folder(folder: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """As :func:`read_folder`, which is under way while the caller does other things: a call waits for its end."""
    where = ["--file", str(folder / COMPOSE_FILE), "--project-directory", str(folder)]
    do_next = "Deploy again, which puts the files of the release back."
    with _config(where) as compose:
        yield lambda: _plain(_document(compose, do_next=do_next))


def read_text(text: str) -> dict[str, Any]:
    """The document of a Compose file that lies nowhere yet: variables and paths stay as they are written.

    Raises :class:`PreflightError` when Compose does not accept it.
    """
    where = ["--file", "-", "--project-directory", "/", "--env-file", "/dev/null"]
    as_written = ["--no-interpolate", "--no-path-resolution"]
    with _config(where, *as_written) as compose:
        return _document(compose, text, do_next="Correct app_services, and run the play again.")


@contextmanager
def _config(where: list[str], *options: str) -> Iterator[subprocess.Popen[str]]:
    try:
        compose = subprocess.Popen(
            ["docker", "compose", "--profile", "*", *where, "config", "--format", "json", *options],
            # Also where there is nothing to send, so that Compose never reads what the engine was sent.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What Compose says is not handed on: it may quote a value, and nothing tells here which ones are secret.
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError as error:
        raise _unread(error) from error
    with compose:
        try:
            yield compose
        finally:
            compose.kill()


def _document(compose: subprocess.Popen[str], text: str = "", *, do_next: str) -> dict[str, Any]:
    try:
        said, _ = compose.communicate(text, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unread(error) from error
    if compose.returncode:
        raise PreflightError("Compose does not accept the Compose file of the release.", do_next)
    found: dict[str, Any] = msgspec.json.decode(said)
    return found


def _unread(error: Exception) -> PreflightError:
    return PreflightError(
        f"Compose could not be asked to read a file ({type(error).__name__}).",
        "Run playbooks/provision.yml for this host.",
    )


def _plain(value: Any) -> Any:
    """Undo the doubling of each `$`, with which Compose prints what it has filled in."""
    match value:
        case str():
            return value.replace("$$", "$")
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value
