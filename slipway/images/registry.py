"""Asking a registry what it holds: the two reads of the distribution API that tell whether a push is needed."""

from __future__ import annotations

import ipaddress
import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import msgspec

from slipway.errors import SlipwayError

# One image, or an index of several; whichever the tag points at is what a pull by digest gets.
MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)
# Seconds to wait for an answer. A registry is near its builder; a slow one is a dead one.
TIMEOUT = 10.0
NOT_FOUND = 404


class Manifest(msgspec.Struct, frozen=True):
    """What a tag points at: the `digest` to pull by, and the id of the image (`config`), empty for an index."""

    digest: str
    config: str


def manifest(repository: str, tag: str) -> Manifest | None:
    """The manifest behind `repository:tag`, or None when the registry has no such tag."""
    answer = _read(repository, f"manifests/{tag}", accept=", ".join(MANIFESTS))
    if answer is None:
        return None
    headers, body = answer
    return Manifest(digest=headers.get("Docker-Content-Digest", ""), config=body.get("config", {}).get("digest", ""))


def labels(repository: str, config: str) -> dict[str, str]:
    """The labels of the image whose configuration has the digest `config`."""
    answer = _read(repository, f"blobs/{config}", accept="*/*")
    return ((answer[1].get("config") or {}).get("Labels") or {}) if answer else {}


def split(repository: str) -> tuple[str, str]:
    """`127.0.0.1:5000/slipway/backend` -> (`127.0.0.1:5000`, `slipway/backend`)."""
    host, _, name = repository.partition("/")
    if not name or not ("." in host or ":" in host or host == "localhost"):
        raise SlipwayError(
            f"{repository} names no registry to push to.",
            "Write it as HOST:PORT/NAME, for example 127.0.0.1:5000/slipway/backend.",
        )
    return host, name


def is_loopback(host: str) -> bool:
    """Docker speaks plain HTTP to exactly these, so the questions go the same way."""
    name = host.rpartition(":")[0] if ":" in host else host
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost"


def unreachable(host: str, why: object) -> SlipwayError:
    """The sentence for a registry that is down."""
    return SlipwayError(
        f"The registry {host} does not answer.",
        "Start it: run playbooks/images.yml (role registry) for its host, or correct the repository's name.",
        details=str(why),
    )


def _read(repository: str, path: str, *, accept: str) -> tuple[Any, dict[str, Any]] | None:
    host, name = split(repository)
    scheme = "http" if is_loopback(host) else "https"
    request = Request(f"{scheme}://{host}/v2/{name}/{path}", headers={"Accept": accept})  # noqa: S310  # scheme is fixed above
    try:
        with urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
            return response.headers, json.load(response)
    except HTTPError as error:
        if error.code == NOT_FOUND:
            return None
        raise SlipwayError(
            f"The registry {host} answers {error.code} when asked for {name}.",
            "Check its logs and whether it wants a login; nothing was pushed.",
            details=error.read(2000).decode(errors="replace"),
        ) from error
    except (URLError, OSError, ValueError) as error:
        raise unreachable(host, getattr(error, "reason", error)) from error
