"""Secrets that leaked: their values are marked as revoked, and no way back restores one that is.

    revoked.json    what was revoked, by keyed fingerprints: when, by whom, why

A rollback to a release that holds a revoked value makes a new release on the host instead: image and configuration of
the old one, with today's values of all secrets that have changed since. Today's are those of the current release.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from slipway import __version__, composefile
from slipway.documents import lay_out
from slipway.errors import PreflightError, SlipwayError
from slipway.release import (
    CERTIFICATES,
    COMPOSE_FILE,
    ID_LENGTH,
    LABEL_RELEASE,
    LABEL_SERVICE,
    File,
    Manifest,
    Release,
    project_of,
)
from slipway.secrets import env_name, held, in_file, key_name, put, read, with_value
from slipway.store import Store

FILE = "revoked.json"
MADE = "made-here:"
"""Starts the fingerprint of a file that was put together on the host, which has not the key for a real one."""

Fingerprints = Mapping[str, str]
"""Name of a secret -> fingerprint of its value."""


class Revocation(msgspec.Struct, kw_only=True, frozen=True):
    """A value that must never be used again."""

    secret: str
    """The name that it was revoked by. The value is revoked wherever it stands."""
    fingerprint: str
    at: str
    """UTC, ISO 8601."""
    by: str
    reason: str


class Revoked:
    """What was revoked in the environment whose folder this is. Adding needs the environment's lock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def read(self) -> list[Revocation]:
        """All of it, oldest first. Raises :class:`SlipwayError` where the file cannot be read: it must not be lost."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[Revocation])
        except FileNotFoundError:
            return []
        except msgspec.MsgspecError as error:
            raise SlipwayError(
                f"What was revoked cannot be read: {self._path} was edited by hand.",
                "Mend it, or remove it and revoke the secrets of its entries in slipway history again.",
            ) from error

    def add(self, revocations: Iterable[Revocation]) -> None:
        """Note some more, so that they are on disk when this returns."""
        beside = self._path.with_name(f".{FILE}")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(msgspec.json.format(msgspec.json.encode([*self.read(), *revocations]), indent=2) + b"\n")
            stream.flush()
            os.fsync(handle)
        beside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def names(self) -> set[str]:
        """Names of the secrets that were revoked."""
        return {one.secret for one in self.read()}

    def fingerprints(self) -> set[str]:
        """Of the values that were revoked."""
        return {one.fingerprint for one in self.read()}

    def in_release(self, manifest: Manifest) -> list[str]:
        """Names of the secrets of which a release holds a revoked value."""
        return among(manifest.secrets, self.fingerprints())


def kept_secrets(store: Store) -> dict[str, Fingerprints]:
    """Release on this host -> its secrets. One that cannot be read is left out: nobody can go back to it either."""
    found: dict[str, Fingerprints] = {}
    for release in store.ids():
        with suppress(PreflightError):
            found[release] = store.manifest(release).secrets
    return found


# --- revoking ---------------------------------------------------------------------------------------------------------


def plan_revocation(
    wanted: Iterable[str], *, today: Fingerprints, kept: Iterable[Fingerprints], revoked: Revoked
) -> dict[str, list[str]]:
    """Decide which values to mark: secret -> fingerprints; empty where all of them are marked already.

    `today` are the secrets of the current release, `kept` those of all releases on the host. Raises
    :class:`PreflightError` for a secret that is not known, or of which no other value than today's is.
    """
    kept = list(kept)
    known, marked, names = {name for one in [today, *kept] for name in one}, revoked.fingerprints(), revoked.names()
    plan = {}
    for secret in dict.fromkeys(wanted):
        if secret not in known:
            raise PreflightError(
                f"No release on this host has a secret {secret}.",
                f"The secrets that are known: {', '.join(sorted(known)) or 'none'}.",
            )
        older = {one[secret] for one in kept if secret in one} - {today.get(secret)}
        if not older and secret not in names:
            raise PreflightError(
                f"Today's value of {secret} is the only one that the releases on this host hold.",
                "Rotate it first: change it in the vault and deploy. Then the older value can be revoked.",
            )
        if still := among(today, older):
            raise PreflightError(
                f"An older value of {secret} is still used today, for {', '.join(still)}.",
                "Rotate it there too: change it in the vault and deploy.",
            )
        if new := sorted(older - marked):
            plan[secret] = new
    return plan


def among(secrets: Fingerprints, values: Collection[str]) -> list[str]:
    """Names of the secrets that have one of these values, by their fingerprints."""
    return sorted(name for name, value in secrets.items() if value in values)


# --- going back -------------------------------------------------------------------------------------------------------


class WayBack(msgspec.Struct, frozen=True, kw_only=True):
    """What going back to a release means for its secrets."""

    manifest: Manifest
    """The release that will serve: the old one, or the one that is made from it."""
    made: Release | None = None
    older: list[str]
    """Secrets of which the release brings back an older value."""
    revoked: list[str] = []
    """Secrets of which the old release holds a revoked value."""

    @property
    def said(self) -> str:
        """What people have to know before they go back; empty where no secret is concerned."""
        parts = []
        if self.made:
            parts.append(
                f"A new release {self.manifest.id} is made of the image and configuration of "
                f"{self.manifest.made_from}, with today's secrets, because {_was_revoked(self.revoked)}."
            )
        if self.older:
            parts.append(f"It brings back the older values of: {', '.join(self.older)}.")
        return " ".join(parts)

    @property
    def answer(self) -> dict[str, Any]:
        """What a call answers of it."""
        made_from = self.manifest.made_from if self.made else ""
        return {"release": self.manifest.id, "made_from": made_from, "older_secrets": self.older, "said": self.said}

    @property
    def reason(self) -> str:
        """Why a release was made, for the ledger."""
        if not self.made:
            return ""
        return f"Made from {self.manifest.made_from} with today's secrets: {_was_revoked(self.revoked)}."


def way_back(store: Store, target: Manifest, revoked: Revoked) -> WayBack:
    """Look what going back to `target` means, with nothing changed.

    Raises :class:`PreflightError` where it holds a revoked value and today's cannot be put in its place.
    """
    current = store.current()
    today = store.manifest(current) if current in store.ids() and current else None
    _need_noted_secrets(store, target, revoked)
    hit = revoked.in_release(target)
    if not hit:
        return WayBack(manifest=target, older=changed(target.secrets, today.secrets if today else {}))
    useless = revoked.fingerprints() | {""}
    lost = [name for name in hit if today is None or today.secrets.get(name, "") in useless]
    if today is None or lost:
        raise PreflightError(
            f"The release {target.id} holds a revoked value of {', '.join(lost)}, and there is no value of today "
            "to put in its place.",
            "Go back to another release, or deploy its tag with the inventory of today.",
        )
    made = renewed(store.release(target.id), store.release(today.id))
    older = changed(made.manifest.secrets, today.secrets)
    return WayBack(manifest=made.manifest, made=made, older=older, revoked=hit)


def _need_noted_secrets(store: Store, target: Manifest, revoked: Revoked) -> None:
    """A manifest that an older version of the kit wrote says nothing of secrets."""
    if target.secrets or not revoked.names():
        return
    if any(spec.secret_env for spec in target.services.values()) or held(store.release(target.id).files, {}):
        raise PreflightError(
            f"A version of the kit made the release {target.id} that did not note its secrets, so nobody can tell "
            f"whether it holds a revoked one.",
            "Go back to another release, or deploy its tag with the inventory of today.",
        )


def changed(old: Fingerprints, today: Fingerprints) -> list[str]:
    """Names of the secrets of `old` that have another value today, or none any more."""
    return sorted(name for name, value in old.items() if today.get(name) != value)


def _was_revoked(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} revoked"


# --- making a release -------------------------------------------------------------------------------------------------

Reader = Callable[[str], dict[str, Any]]
"""Reads a Compose file, with its variables as they are written."""


def renewed(old: Release, today: Release, compose: Reader = composefile.read_text) -> Release:
    """Make the release `old` anew, with the values of `today` of all secrets that both have and that differ.

    Its id follows from the old one and from what was put in, so every host makes the same. Raises
    :class:`PreflightError` where one of the values cannot be put in.
    """
    before, now = old.manifest.secrets, today.manifest.secrets
    fresh = {name: now[name] for name in changed(before, now) if name in now}
    release_id = _id_of(old.manifest.id, fresh)
    documents = {
        release.manifest.id: compose(next(file.content for file in release.files if file.path == COMPOSE_FILE))
        for release in (old, today)
    }
    there = documents[today.manifest.id]
    values = {name: value for name, value in _values(today, there).items() if name in fresh}
    document = _renamed(_with_env(documents[old.manifest.id], values), old.manifest, release_id)
    certificates = {file.path: file for file in today.files if file.path.startswith(f"{CERTIFICATES}/")}
    files = [
        _compose_file(file, document, old.manifest)
        if file.path == COMPOSE_FILE
        else _with_values(file, values, certificates)
        for file in old.files
    ]
    made = Release(
        manifest=msgspec.structs.replace(
            old.manifest,
            id=release_id,
            kit=__version__,
            secrets=before | fresh,
            made_from=old.manifest.id,
            fingerprints={
                file.path: _fingerprint(file, was, old.manifest, today.manifest, fresh)
                for file, was in zip(files, old.files, strict=True)
            },
        ),
        files=files,
    )
    _check(_values(made, document), values)
    return made


def _id_of(old: str, fresh: Fingerprints) -> str:
    body = {"made_from": old, "secrets": fresh}
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()[:ID_LENGTH]


def _values(release: Release, document: Mapping[str, Any]) -> dict[str, str]:
    """Name -> value; those of the environment as they stand in the Compose file, each `$` doubled."""
    env = {
        service: {name: given[name] for name in spec.secret_env if name in given}
        for service, spec in release.manifest.services.items()
        for body in document["services"].values()
        if body["labels"][LABEL_SERVICE] == service and (given := body.get("environment") or {})
    }
    return held(release.files, env)


def _with_env(document: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The Compose document with these values in the environment of its services, which are replicas at times."""
    services = {}
    for name, body in document["services"].items():
        service, env = body["labels"][LABEL_SERVICE], body.get("environment") or {}
        renewed_env = {variable: values.get(env_name(service, variable), value) for variable, value in env.items()}
        services[name] = body | ({"environment": renewed_env} if env else {})
    return {**document, "services": services}


def _renamed(document: dict[str, Any], old: Manifest, release_id: str) -> dict[str, Any]:
    """The Compose document under another release's name. Compose has filled in the network's, which follows from it."""
    services = {
        name: {**body, "labels": {**body["labels"], LABEL_RELEASE: release_id}}
        for name, body in document["services"].items()
    }
    networks = {
        name: {key: value for key, value in network.items() if value != f"{old.project}_{name}"}
        for name, network in document["networks"].items()
    }
    return {**document, "name": project_of(old.name, release_id), "services": services, "networks": networks}


def _compose_file(file: File, document: dict[str, Any], old: Manifest) -> File:
    # JSON is YAML. Laid out by hand it could say something else than what Compose read.
    head = (
        f"# A release of {old.name}, made on this host from {old.id} with secrets that were changed since.\n"
        "# Do not edit: a change is a new release, made by playbooks/deploy.yml.\n"
    )
    return msgspec.structs.replace(file, content=head + lay_out("compose.json", document))


def _with_values(file: File, values: Mapping[str, str], certificates: Mapping[str, File]) -> File:
    """A file with these values in it; one in which none of them stands is left byte for byte."""
    if file.path in certificates and key_name(file) in values:
        # A key is of no use without its certificate.
        return certificates[file.path]
    here = {name: secret for name, secret in in_file(file).items() if name in values}
    if not here:
        return file
    document = read(file)
    for name, secret in here.items():
        put(document, secret.at, with_value(secret, values[name]))
    return msgspec.structs.replace(file, content=lay_out(file.path, document))


def _fingerprint(file: File, was: File, old: Manifest, today: Manifest, fresh: Fingerprints) -> str:
    """The keyed fingerprint of a file, where one is known. For a file that was put together here there is none.

    The key never leaves the controller, and without one a short secret could be guessed from a hash. What stands in
    its place starts with a word that says so, and follows from what the file was made of.
    """
    if file.content == was.content:
        return old.fingerprints[file.path]
    if file.path.startswith(f"{CERTIFICATES}/"):
        return today.fingerprints[file.path]
    body = [old.fingerprints[file.path], sorted(fresh.items())]
    return MADE + hashlib.sha256(msgspec.json.encode(body)).hexdigest()


def _check(found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    if wrong := sorted(name for name, value in wanted.items() if found.get(name) != value):
        raise PreflightError(
            f"Today's value of {', '.join(wrong)} cannot be put into the older release.",
            "Go back to another release, or deploy its tag with the inventory of today.",
        )
