"""A release: image digests, rendered files and keyed fingerprints of what is secret in them.

The id is a hash over those three, computed on the controller, so every host has the same id for the same
release. It does not contain the Compose project's name or the id itself, which are derived from it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from types import UnionType
from typing import Any, get_args, get_origin

import msgspec

from slipway.contract import Service

ID_LENGTH = 16
PROJECT_ID_LENGTH = 8

COMPOSE_FILE = "compose.yml"
MANIFEST_FILE = "manifest.json"
CERTIFICATES = "edge"
"""The folder with the files that `route.tls` gives the edge to read: <service>.crt, .key and .ca."""

MIGRATE_ENV = "/.environment.json"
"""Among the files of the commands of `migrate`: what is put into their environment."""

LABEL_NAME = "org.slipway.name"
LABEL_STACK = "org.slipway.stack"
LABEL_RELEASE = "org.slipway.release"
LABEL_SERVICE = "org.slipway.service"

NETWORK_VARIABLE = "SLIPWAY_NETWORK"
"""The first three octets of the release's subnet, which each host chooses for itself (`slipway.network`)."""
ONCE_VARIABLE = "SLIPWAY_ONCE"
"""The last octet for a one-shot run, so that it does not claim the address of the service that it runs beside."""
ONCE = 250
"""The one after it is for a second run at the same time."""
FIRST_ADDRESS = 11

CONFIG = "config"
"""The folder with the config files of each service."""

NAME = re.compile(r"[a-z][a-z0-9-]{1,40}")


class File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One file of a release folder. `path` is relative to the folder, `mode` is octal text."""

    path: str
    content: str
    mode: str = "0400"
    uid: int = 0
    gid: int = 0


class Manifest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What a release folder says of itself. It holds no secret: files are known by keyed fingerprints."""

    name: str
    environment: str
    id: str
    kit: str
    images: dict[str, str]
    """Service -> `repository@sha256:…`."""
    tags: dict[str, str]
    """Service -> the tag that people know the image by."""
    fingerprints: dict[str, str]
    """File of the folder -> HMAC-SHA256 of its content under the environment's own key."""
    services: dict[str, Service]
    """The contract, without config files and secrets."""
    secrets: dict[str, str] = {}
    """Name of each secret (`slipway.secrets`) -> HMAC-SHA256 of its value under the same key."""
    owner: str = ""
    """Which inventory it comes from (:func:`owner`); empty where an older kit made it."""
    made_from: str = ""
    """The release that a host made this one from, with today's secrets (`slipway.revoked`); empty for all others."""

    @property
    def project(self) -> str:
        """The Compose project that this release runs as."""
        return project_of(self.name, self.id)


def read_manifest(data: bytes) -> Manifest:
    """Read a manifest that lies on a host.

    Another version of the kit may have written it, and a release that serves must stay readable: keys that this
    version does not know are passed over, where an inventory's would be refused. Raises msgspec.ValidationError.
    """
    return msgspec.convert(known(msgspec.json.decode(data), Manifest), Manifest)


def known(data: Any, shape: Any) -> Any:
    """Drop the keys of structs that `shape` does not have, at every depth."""
    inner = [argument for argument in get_args(shape) if argument is not type(None)]
    match data:
        case dict() if isinstance(shape, type) and issubclass(shape, msgspec.Struct):
            fields = {field.encode_name: field.type for field in msgspec.structs.fields(shape)}
            return {key: known(value, fields[key]) for key, value in data.items() if key in fields}
        case dict() if get_origin(shape) is dict:
            return {key: known(value, inner[1]) for key, value in data.items()}
        case list() if inner:
            return [known(value, inner[0]) for value in data]
        case _ if isinstance(shape, UnionType):
            return known(data, inner[0])
        case _:
            return data


class Release(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A whole release on its way to a host."""

    manifest: Manifest
    files: list[File]


class Instance(msgspec.Struct, frozen=True):
    """One container of a release."""

    service: str
    name: str
    """Of the container's service in Compose: `api`, and `api-2` for a second replica."""
    number: int
    """The last octet of its address."""


def instances(services: Mapping[str, Service]) -> list[Instance]:
    """All containers that a release consists of while it serves, in a fixed order."""
    names = [
        (service, service if replica == 1 else f"{service}-{replica}")
        for service in sorted(services)
        if services[service].kind != "job"
        for replica in range(1, services[service].replicas + 1)
    ]
    return [Instance(service, name, FIRST_ADDRESS + at) for at, (service, name) in enumerate(names)]


def migrating(service: str) -> str:
    """The folder below config/ with what the commands of a service's `migrate` alone see."""
    return f"{service}@migrate"


def config_path(service: str, path: str) -> str:
    """Where a release folder has the config file that a service sees at `path`."""
    return f"{CONFIG}/{service}/{path.lstrip('/')}"


def project_of(name: str, release_id: str) -> str:
    """Name the Compose project of a release: `<name>-<first eight of the id>`."""
    return f"{name}-{release_id[:PROJECT_ID_LENGTH]}"


def owner(key: str, name: str) -> str:
    """Tell the inventory with this fingerprint key from all others that call an environment `name`."""
    return fingerprint(key, f"the inventory of {name}")


def fingerprint(key: str, content: str) -> str:
    """Fingerprint a file or a secret: a change shows, and it cannot be guessed from it. Hex, 64 digits."""
    return hmac.new(key.encode(), content.encode(), hashlib.sha256).hexdigest()


def identity(
    *,
    name: str,
    environment: str,
    images: dict[str, str],
    services: dict[str, Service],
    compose: dict[str, Any],
    files: list[File],
    key: str,
) -> str:
    """Compute the id of a release: 16 hex digits over everything that makes it what it is."""
    body = {
        "name": name,
        "environment": environment,
        "images": images,
        "services": services,
        "compose": fingerprint(key, msgspec.json.encode(compose, order="sorted").decode()),
        "files": {file.path: [fingerprint(key, file.content), file.mode, file.uid, file.gid] for file in files},
    }
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()[:ID_LENGTH]
