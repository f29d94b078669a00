"""What a release would change in the files on its host, for `--check --diff`: line by line, and without a secret.

What is shown are documents, not texts: JSON and Compose files are read, masked value by value under the keys that
make them secret, and laid out again. Each secret has a number, the same one on both sides while it is the same, so
that a changed secret shows. Of a file of another kind only the fingerprint is shown, since nothing tells what in it
is secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from slipway import composefile
from slipway.errors import PreflightError
from slipway.redact import SECRET_KEY, passwords, replace
from slipway.release import COMPOSE_FILE, MANIFEST_FILE, Manifest, Release
from slipway.store import HOST_FILES, Store

ABSENT = "absent"
UNSHOWN = frozenset({"id", "kit", "fingerprints", "secrets", "made_from"})
"""Keys of a manifest that say nothing by themselves, or only that something in some file has changed."""
THIS_RELEASE = "<release>"
"""Stands for the release's own id, which differs in every release and tells nothing."""


class Page(msgspec.Struct, frozen=True):
    """One file as it can be compared."""

    about: str
    """Mode and owner."""
    document: Any
    """What JSON or Compose read out of it; None where it is shown by `unshown` instead."""
    unshown: str = ""


class Side(msgspec.Struct, frozen=True):
    """All files of one release."""

    release: str
    project: str
    pages: dict[str, Page]
    secret_env: frozenset[str]
    """Names of the environment variables that are secret whatever they are called."""


def preview(store: Store, release: Release) -> list[dict[str, str]]:
    """Compare `release` with the current one, in the form in which a module gives differences to Ansible.

    Raises :class:`PreflightError` when Compose does not accept the new Compose file.
    """
    current = store.current()
    before = _staged(store, current) if current in store.ids() and current else None
    return differences(before, _coming(release))


def differences(before: Side | None, after: Side) -> list[dict[str, str]]:
    """The files that differ: `before`, `after` and a header for each, with every secret masked by its number."""
    sides = [side for side in (before, after) if side is not None]
    masks: dict[str, str] = {}
    for side in sides:
        for page in side.pages.values():
            for secret in _secrets(page.document, side.secret_env):
                masks.setdefault(secret, f"[redacted {len(masks) + 1}]")
    shown = [{path: _text(page, side, masks) for path, page in side.pages.items()} for side in sides]
    old, new = shown if before is not None else [{}, *shown]
    return [
        {
            "before_header": f"{path} ({before.release if before and path in old else ABSENT})",
            "after_header": f"{path} ({after.release if path in new else ABSENT})",
            "before": old.get(path, ""),
            "after": new.get(path, ""),
        }
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


# --- reading ----------------------------------------------------------------------------------------------------------


def _coming(release: Release) -> Side:
    manifest = release.manifest
    pages = {
        file.path: _page(file.path, file.content, f"mode {file.mode}, owner {file.uid}:{file.gid}", manifest)
        for file in release.files
    }
    return _side(manifest, pages)


def _staged(store: Store, release_id: str) -> Side:
    manifest, folder = store.manifest(release_id), store.path(release_id)
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    pages = {}
    for name, path in files.items():
        if name not in HOST_FILES | {MANIFEST_FILE}:
            text = path.read_text(encoding="utf-8", errors="replace")
            try:
                pages[name] = _page(name, text, _about(path), manifest)
            except PreflightError:
                # Someone edited it by hand; that must not keep anyone from seeing what a deploy would do.
                pages[name] = Page(_about(path), None, "(Compose cannot read it)")
    return _side(manifest, pages)


def _about(path: Path) -> str:
    status = path.stat()
    return f"mode {status.st_mode & 0o7777:04o}, owner {status.st_uid}:{status.st_gid}"


def _side(manifest: Manifest, pages: dict[str, Page]) -> Side:
    told = {name: value for name, value in msgspec.to_builtins(manifest).items() if name not in UNSHOWN}
    return Side(
        release=manifest.id,
        project=manifest.project,
        pages={**pages, MANIFEST_FILE: Page("", told)},
        secret_env=frozenset(name for spec in manifest.services.values() for name in spec.secret_env),
    )


def _page(path: str, text: str, about: str, manifest: Manifest) -> Page:
    if path == COMPOSE_FILE:
        return Page(about, composefile.read_text(text))
    if path.endswith(".json"):
        try:
            return Page(about, msgspec.json.decode(text))
        except msgspec.DecodeError:
            pass
    lines, fingerprint = len(text.splitlines()), manifest.fingerprints.get(path, "unknown")[:16]
    return Page(about, None, f"(text of {lines} lines, fingerprint {fingerprint})")


# --- masking ----------------------------------------------------------------------------------------------------------


def _text(page: Page, side: Side, masks: Mapping[str, str]) -> str:
    shown = page.unshown or json.dumps(_masked(page.document, side.secret_env, masks), indent=2, ensure_ascii=False)
    shown = shown.replace(side.release, THIS_RELEASE).replace(side.project, THIS_RELEASE)
    return f"{page.about}\n{shown}\n".lstrip("\n")


def _secrets(document: Any, secret_env: frozenset[str], under: str = "") -> Iterator[str]:
    """The secrets of a document, in its order."""
    match document:
        case dict():
            for key, value in document.items():
                yield from _secrets(value, secret_env, _path(under, str(key)))
        case list():
            for value in document:
                yield from _secrets(value, secret_env, under)
        case _ if _is_secret(document, under, secret_env):
            yield str(document)
        case str():
            yield from passwords(document)


def _masked(document: Any, secret_env: frozenset[str], masks: Mapping[str, str], under: str = "") -> Any:
    """The document with a mask in the place of each secret, also where one stands within another text."""
    match document:
        case dict():
            return {key: _masked(value, secret_env, masks, _path(under, str(key))) for key, value in document.items()}
        case list():
            return [_masked(value, secret_env, masks, under) for value in document]
        case _ if _is_secret(document, under, secret_env):
            return masks[str(document)]
        case str():
            for password in passwords(document):
                # Also one that is too short to be looked for everywhere.
                document = document.replace(f":{password}@", f":{masks[password]}@")
            return replace(document, masks)
        case _:
            return document


def _path(under: str, key: str) -> str:
    """What is secret by its key is secret to its last leaf."""
    return f"{under}.{key}" if SECRET_KEY.search(under) else key


def _is_secret(value: Any, under: str, secret_env: frozenset[str]) -> bool:
    # A number may be a secret too; true, false and null tell nothing.
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return False
    return bool(SECRET_KEY.search(under)) or under in secret_env
