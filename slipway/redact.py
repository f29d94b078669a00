"""Take secrets out of output that is shown to people: a container may print its own configuration when it dies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from slipway import documents

Place = tuple[str | int, ...]
"""Where a value stands in a JSON document: keys and, in lists, positions."""

SECRET_KEY = re.compile(r"secret|passw|token|key|credential|auth", re.IGNORECASE)
SHORTEST = 6
"""Shorter values are left alone: replacing them would garble the text and hide nothing."""
MASK = "[redacted]"


class Secret(msgspec.Struct, frozen=True):
    """A text of a JSON document that is secret by its key, or of which the password of a URL is."""

    at: Place
    text: str
    whole: bool
    """Whether all of the text is secret, and not only a password in it."""


def find(document: Any, at: Place = (), under: str = "") -> Iterator[Secret]:
    """Find what looks secret in a JSON document, in its order."""
    match document:
        case dict():
            for key, value in document.items():
                yield from find(value, (*at, str(key)), f"{under}.{key}" if SECRET_KEY.search(under) else str(key))
        case list():
            for position, value in enumerate(document):
                yield from find(value, (*at, position), under)
        case str() if SECRET_KEY.search(under):
            yield Secret(at, document, whole=True)
        case str() if any(passwords(document)):
            yield Secret(at, document, whole=False)


def secrets_in(document: Any) -> Iterator[str]:
    """The values of a JSON document that look secret: by their key, or as the password of a URL."""
    for secret in find(document):
        if secret.whole:
            yield secret.text
        yield from passwords(secret.text)


def secrets_of(folder: Path) -> set[str]:
    """Collect the secrets of a release folder from the documents among its config files."""
    found: set[str] = set()
    for path in (folder / "config").rglob("*"):
        try:
            found.update(secrets_in(documents.read(path.name, path.read_text())))
        except (OSError, UnicodeDecodeError):
            continue
    return found


def redact(text: str, secrets: set[str]) -> str:
    """Mask every secret in the text."""
    return replace(text, dict.fromkeys(secrets, MASK))


def replace(text: str, masks: Mapping[str, str]) -> str:
    """Put a mask of its own in the place of each secret, the longest first, so that no tail of one stays.

    A secret is masked as it is, as a log in JSON writes it, and line by line, since a log puts its prefix between.
    """
    shapes = {shape: mask for secret, mask in masks.items() for shape in _shapes(secret)}
    for shape in sorted(shapes, key=len, reverse=True):
        if len(shape) >= SHORTEST:
            text = text.replace(shape, shapes[shape])
    return text


def _shapes(secret: str) -> Iterator[str]:
    for text in (secret, *secret.splitlines()):
        yield text
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]


def passwords(value: str) -> Iterator[str]:
    """The password of a URL, as it is written and as it is meant."""
    if "://" not in value:
        return
    try:
        password = urlsplit(value).password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)
