"""The documents that config files hold, by the name of the file: `.env` is NAME=value lines, all else is JSON.

An `.env` file is one that `.` of a POSIX shell reads, byte for byte: a value of harmless characters stands as it is,
any other one between single quotes, in which nothing has a meaning. Other readers of such files agree with it as long
as no value holds a single quote or a backslash.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

import msgspec

ENV_SUFFIX = ".env"
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=((?:[A-Za-z0-9_./:@%+,=-]+|'[^']*'|\\')*)(?:\n|\Z)")


def is_env(path: str) -> bool:
    """Whether a file of that name holds NAME=value lines."""
    return path.endswith(ENV_SUFFIX)


def read(path: str, text: str) -> Any:
    """The document of a file, an object or a list; None where it holds neither."""
    if is_env(path):
        return _read_env(text)
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    return document if isinstance(document, dict | list) else None


def lay_out(path: str, document: Any) -> str:
    """The text of a file, as the kit writes it."""
    if is_env(path):
        return "".join(f"{name}={_quoted(env_text(value))}\n" for name, value in document.items())
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def env_text(value: str | float | bool) -> str:
    """A value as a program finds it in its environment."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else "'" + value.replace("'", "'\\''") + "'"


def _read_env(text: str) -> Mapping[str, str] | None:
    """None for a file that the kit has not laid out: what a reader of its own makes of it, nobody can tell."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        line = _LINE.match(text, at)
        if line is None:
            return None
        found[line[1]] = "".join(shlex.split(line[2])) if line[2] else ""
        at = line.end()
    return found
