"""The contract of a backend: what its image needs and what it promises, as typed data.

The shapes here are what `app_services` in an inventory is decoded into. Decoding is strict: an unknown key is a
mistake that an operator wants to hear about, never something to ignore. Durations are seconds, sizes are
Compose strings (`256m`).
"""

from __future__ import annotations

from typing import Any

import msgspec


class Health(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What a service must answer over HTTP before it counts as healthy."""

    path: str
    status: int = 200
    json: dict[str, Any] = {}
    """Dotted key in the body -> the value that must stand there."""
    version: str = ""
    """Dotted key under which the body tells the version; it must equal the image's own version label."""
    interval: float = 0.25
    """Seconds between two probes."""
    timeout: float = 2.0
    """Seconds one probe may take."""
    passes: int = 2
    """Good answers in a row that make it healthy."""
    start_period: float = 60.0
    """Seconds the service has, all in all, to become healthy."""


class Migrate(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How the database schema is brought to what the image needs. Commands are argument lists."""

    up: list[str]
    plan: list[str]
    """Prints one pending revision a line, nothing when none is pending."""
    status: list[str]
    """Prints the revision the database is at as its last line."""
    entrypoint: str | None = None
    timeout: float = 600.0


class ConfigFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A file that the kit writes and the container sees read-only at `path`."""

    path: str
    content: Any
    mode: str = "0440"
    uid: int = 0
    gid: int = 0


class ConfigSchema(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A config file that the service cannot do without, and the JSON Schema that it must meet."""

    path: str
    schema: dict[str, Any]


class Volume(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A named volume; its name on the host is `<slipway_name>-<name>`, whatever the release."""

    path: str
    uid: int
    gid: int


class Resources(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Limits of one container."""

    memory: str = "512m"
    cpus: float = 1.0
    pids: int = 256


class Service(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One service of the application."""

    image: str
    """Repository without tag: `registry/name`."""
    tag: str = ""
    digest: str = ""
    """`sha256:…`; with it the tag is only a name for people."""
    user: str
    """`uid:gid` that the container runs as."""
    port: int | None = None
    """The port that the process listens on in the container."""
    publish: int | None = None
    """The host's loopback port; the same as `port` when not given."""
    command: list[str] | None = None
    entrypoint: list[str] | None = None
    init: bool = False
    stop_grace_period: float = 10.0
    read_only: bool = True
    tmpfs: list[str] = []
    cap_add: list[str] = []
    resources: Resources = Resources()
    env: dict[str, str | int | float | bool] = {}
    secret_env: dict[str, str] = {}
    required_env: list[str] = []
    config_files: list[ConfigFile] = []
    config_schema: list[ConfigSchema] = []
    health: Health | None = None
    migrate: Migrate | None = None
    volumes: dict[str, Volume] = {}
    needs: list[str] = []
    """Services that must be up before this one starts."""

    @property
    def host_port(self) -> int | None:
        """The loopback port on the host, or None for a service that answers nobody."""
        return self.publish if self.publish is not None else self.port

    @property
    def uid_gid(self) -> tuple[int, int]:
        """`user` as numbers. Raises ValueError when it is not `uid:gid`."""
        uid, _, gid = self.user.partition(":")
        return int(uid), int(gid)


def decode_services(data: object) -> dict[str, Service]:
    """Decode `app_services`. Raises msgspec.ValidationError, whose text names the whole path and no value."""
    # Service by service: msgspec's own path for a key of a mapping is `$[...]`, which does not say which service.
    return {name: _decode_service(name, body) for name, body in msgspec.convert(data, dict[str, Any]).items()}


def _decode_service(name: str, body: object) -> Service:
    try:
        return msgspec.convert(body, Service)
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at `$")
        path = f"app_services.{name}{path.rstrip('`')}"
        raise msgspec.ValidationError(f"{said} - at `{path}`") from error
