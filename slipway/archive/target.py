"""Where backups go, and what opens it: the target that an inventory names."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from slipway.errors import UsageError

Kind = Literal["folder", "sftp", "s3"]
FORMS = "/folder, sftp://user@host[:port]/folder, or s3://host[:port]/bucket[/folder]"
SHORTEST_PASSWORD = 20

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*|[0-9a-fA-F:]+")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PATH = re.compile(r"(/[A-Za-z0-9_.@+-]+)+")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A target's URL in its parts."""

    kind: Kind
    path: str
    """The folder, absolute; in a bucket from its root, empty for the root itself."""
    host: str = ""
    port: int = 0
    """0 where the URL names none."""
    user: str = ""
    bucket: str = ""

    def below(self, name: str) -> Place:
        """A folder of it."""
        return msgspec.structs.replace(self, path=f"{self.path}/{name}")


class Target(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A target with what opens it. All but `url`, `region`, `known_hosts` and `ca` is secret."""

    url: str
    """A folder of the host, `sftp://user@host/folder`, or `s3://host/bucket/folder`, which is reached over TLS."""
    password: str
    """Everything is encrypted with it. Without it no backup can be read."""
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"
    """Of an S3 store."""
    ssh_key: str = ""
    """The private key for `sftp://`, as text."""
    known_hosts: str = ""
    """Lines of the host key of `sftp://`, as `ssh-keyscan` prints them."""
    ca: str = ""
    """PEM of the authority of an S3 store's certificate, where that is no public one."""

    @property
    def place(self) -> Place:
        """The URL in its parts. Raises :class:`UsageError` for one of no known form."""
        return place_of(self.url)


def place_of(url: str) -> Place:
    """Read the URL of a target. Raises :class:`UsageError`, which does not show the URL: it may hold a password."""
    if url.startswith("/") and _PATH.fullmatch(url.rstrip("/")):
        return Place(kind="folder", path=url.rstrip("/"))
    try:
        parts = urlsplit(url)
        place = {"sftp": _sftp, "s3": _s3}[parts.scheme](parts)
    except (KeyError, ValueError):
        place = None
    if place is None or parts.password is not None or parts.query or parts.fragment:
        raise UsageError("backup_target is no URL of a known form.", f"Write {FORMS}.")
    return place


def _sftp(parts: SplitResult) -> Place | None:
    host, user, path = parts.hostname or "", parts.username or "", parts.path.rstrip("/")
    if not (_HOST.fullmatch(host) and _USER.fullmatch(user) and _PATH.fullmatch(path)):
        return None
    return Place(kind="sftp", path=path, host=host, port=parts.port or 0, user=user)


def _s3(parts: SplitResult) -> Place | None:
    host, path = parts.hostname or "", parts.path.rstrip("/")
    if not (_HOST.fullmatch(host) and _PATH.fullmatch(path)) or parts.username:
        return None
    bucket, _, folder = path[1:].partition("/")
    return Place(kind="s3", path=f"/{folder}" if folder else "", host=host, port=parts.port or 0, bucket=bucket)


def problems(target: Target) -> list[str]:
    """All that is wrong with a target, a sentence each; nothing where it can be tried."""
    try:
        kind = target.place.kind
    except UsageError as error:
        return [str(error)]
    found = []
    if len(target.password) < SHORTEST_PASSWORD:
        found.append("There is no backup_password, or a very short one. Generate it: playbooks/secrets.yml.")
    if kind == "sftp" and not target.ssh_key:
        found.append(
            "backup_target is reached over SSH, and there is no backup_ssh_key. Put a private key into the vault."
        )
    if kind == "sftp" and not target.known_hosts:
        found.append(
            "backup_target is reached over SSH, and backup_known_hosts is empty. Put there what "
            "`ssh-keyscan HOST` prints, once you have compared it with the host's own key."
        )
    if kind == "s3" and not (target.access_key and target.secret_key):
        found.append(
            "backup_target is an S3 store, and backup_access_key or backup_secret_key is missing in the vault."
        )
    return found
