"""The contract of a backend: what its image needs and what it promises, as typed data.

The shapes here are what `app_services` in an inventory is decoded into. Decoding is strict: an unknown key is a
mistake that an operator wants to hear about, never something to ignore. Durations are seconds, sizes are
Compose strings (`256m`) where nothing else is said.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import msgspec


class Expectation(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What must stand at a key of the body, where it is not simply one value. All that is stated must hold."""

    equals: Any = msgspec.UNSET
    one_of: list[Any] = []
    present: bool | None = None
    """Whether the key has to be there, with whatever value other than null."""


class DatabaseProbe(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How to find out whether the database answers, for an application whose own health does not look at it."""

    command: list[str] = []
    """Run in the container as its own user with its whole environment; exit code 0 says that it does."""
    connect: str = ""
    """`host:port` of a PostgreSQL that this host asks for a greeting, for images in which nothing can be run."""
    timeout: float = 5.0
    """Seconds one probe may take."""
    interval: float = 5.0
    """Seconds between two probes once it serves and is watched."""


class Health(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What a service must answer over HTTP before it counts as healthy. It is asked from outside its container."""

    path: str
    status: int = 200
    json: dict[str, Any] = {}
    """Dotted key in the body -> the value that must stand there, or an :class:`Expectation` as a mapping."""
    database: DatabaseProbe | None = None
    image_check: bool = True
    """Whether the image's own HEALTHCHECK counts too; without, it is switched off: it may need a missing program."""
    version: str = ""
    """Dotted key under which the body tells the version; it must equal the image's own version label."""
    timeout: float = 2.0
    """Seconds one probe may take."""
    start_period: float = 60.0
    """Seconds the service has, all in all, to become healthy."""
    start_interval: float = 0.25
    """Seconds between two probes until then."""
    passes: int = 2
    """Good answers in a row that make it healthy."""
    interval: float = 1.0
    """Seconds between two probes once it serves and is watched."""
    retries: int = 3
    """Bad answers in a row that make it unhealthy then."""

    def __post_init__(self) -> None:
        try:
            _ = self.expectations
        except msgspec.ValidationError as error:
            raise ValueError(f"{error} (a mapping in health.json states equals, one_of or present)") from error

    @property
    def expectations(self) -> dict[str, Expectation]:
        """`json`, each value as an expectation. Raises msgspec.ValidationError for a mapping that is none."""
        return {
            key: msgspec.convert(wanted, Expectation) if isinstance(wanted, dict) else Expectation(equals=wanted)
            for key, wanted in self.json.items()
        }


class ConfigFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A file that the kit writes and the container sees read-only at `path`."""

    path: str
    content: Any
    format: Literal["json", "env", "text"] | None = None
    """How the content is laid out; without it text is text, and anything else JSON. `env` is NAME=value lines."""
    mode: str = "0440"
    uid: int = 0
    gid: int = 0


class Backup(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How the image itself saves its database, by its own client and as its own user. Commands are argument lists."""

    create: list[str]
    """Writes a backup of the live database to stdout."""
    verify: list[str]
    """Reads a backup from stdin, restores it to a scratch database, opens that, prints a JSON object: table -> rows."""
    count: list[str]
    """Prints the same object for the live database."""
    restore: list[str]
    """Reads a backup from stdin and puts it in the place of the live database, whole or not at all."""
    status: list[str] = []
    """Reads a backup from stdin and prints the revision that it is at as its last line."""
    anonymise: list[str] = []
    """Takes out of the live database what nobody may see outside of the environment that it came from."""


class Migrate(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How the database schema is brought to what the image needs: by commands of the image, or by SQL files.

    Commands are argument lists, run in the new image with the service's whole environment.
    """

    up: list[str] = []
    plan: list[str] = []
    """Prints one pending revision a line, nothing when none is pending."""
    pending_exit: int = 0
    """The exit code of `plan` when something is pending."""
    ahead: str = ""
    """A regular expression: where `plan` prints it, the schema is ahead of the image. Others simply fail then."""
    head: list[str] = []
    """Prints the revision that the image wants, for a program without a plan: pending is what `status` is not at."""
    status: list[str] = []
    """Prints the revision the database is at as its last line."""
    revision: str = ""
    """A regular expression that finds a revision in a line, by its first group. Other lines are passed over."""
    once: list[str] = []
    """SQL files of `config_files`, in their order, instead of commands: psql applies each once, and notes it."""
    sql: list[str] = []
    """Prints the SQL that `up` would run. Without it nobody can judge whether the old release can go on meanwhile."""
    dialect: Literal["sqlite", "postgresql"] | None = None
    """What the SQL is judged as. `sqlite` is a database embedded in the application: a file on a volume."""
    down: list[str] = []
    """Takes the schema back to a revision, which stands where the list says `{revision}`; else by one step a time."""
    on_rollback: Literal["refuse", "skip", "down", "restore"] = "refuse"
    """What a rollback does where the schema is ahead of what the older release can run on."""
    backup: Backup | Literal["none"] | None = None
    """How the database is backed up before anything pending is applied; `none` goes without, and has to be said."""
    entrypoint: str | None = None
    timeout: float = 600.0
    secret_env: dict[str, str] = {}
    """What these commands see in their environment beside the service's, or in its place: the owner's URL, say."""
    config_files: list[ConfigFile] = []
    """Files that these commands see beside the service's, or in the place of those with the same path."""


class Tls(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Where the certificate of a route comes from."""

    mode: Literal["acme", "own", "internal"]
    """From an ACME server, given here, or from the edge's own CA."""
    certificate: str = ""
    """For `own`: PEM, the server's certificate first, then the chain."""
    key: str = ""
    """For `own`: PEM; a secret."""
    email: str = ""
    """For `acme`: where the CA writes to when a certificate runs out."""
    directory: str = ""
    """For `acme`: the server's directory URL; without it Let's Encrypt and ZeroSSL."""
    ca: str = ""
    """For `acme`: PEM of the CA that the ACME server's own certificate is of, where that is no public one."""


_SIZE = re.compile(r"([0-9]+)([kMG]i?)?B")
_UNITS = {None: 1, "k": 10**3, "M": 10**6, "G": 10**9, "ki": 2**10, "Mi": 2**20, "Gi": 2**30}


class Route(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What the edge sends to a service from outside, and on which terms."""

    hosts: list[str] = []
    """Names that the public entry answers to. Without any, the service is reached on loopback alone."""
    paths: list[str] = msgspec.field(default_factory=lambda: ["/*"])
    """Path patterns as Caddy writes them."""
    tls: Tls | None = None
    """Without it, plain HTTP."""
    hsts: float = 31536000.0
    """Seconds that browsers insist on HTTPS; 0 does not say it."""
    max_body: str = "16MB"
    """The largest request: a number and B, kB, MB, GB, kiB, MiB or GiB."""
    answer_timeout: float = 60.0
    """Seconds until the application has begun its answer."""
    patience: float = 5.0
    """Seconds that a request waits for an application that does not accept connections, while it is restarted."""

    @property
    def max_body_bytes(self) -> int:
        """`max_body` as a number. Raises ValueError when it is none of its form."""
        match = _SIZE.fullmatch(self.max_body)
        if match is None:
            raise ValueError(self.max_body)
        return int(match[1]) * _UNITS[match[2]]


class ConfigSchema(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A config file that the service cannot do without, and the JSON Schema that it must meet."""

    path: str
    schema: dict[str, Any]


class Volume(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A named volume; its name on the host is `<slipway_name>-<name>`, whatever the release."""

    path: str
    uid: int
    gid: int
    read_only: bool = False
    """Whether this service only reads what another one puts there."""
    backup: bool = False
    """Whether it goes to the archive. A database is backed up by `migrate.backup`, and not as a volume."""


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
    allow_root: bool = False
    """Whether that may be root, for an image that knows no other user. Preflight warns of it."""
    kind: Literal["web", "worker", "job"] = "web"
    """A `worker` answers nobody. A `job` runs only for its own migrations, before any other service is started."""
    port: int | None = None
    """The port that the process listens on in the container."""
    publish: int | None = None
    """The loopback port on which the edge answers for it; the same as `port` when not given."""
    route: Route = Route()
    update: Literal["overlap", "recreate"] = "overlap"
    """Whether the new one starts beside the old one, or in its place: for workers, schedulers, singletons."""
    replicas: int = 1
    drain_seconds: float = 30.0
    """Seconds that the old release gets to finish what it is doing once traffic has moved."""
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
    """Services that must be healthy before this one starts."""
    networks: list[str] = []
    """Docker networks that are there already, which it joins under its own name."""

    @property
    def host_port(self) -> int | None:
        """The port on the host's loopback address where the edge answers for it, or None: it answers nobody."""
        return self.publish if self.publish is not None else self.port

    @property
    def public(self) -> bool:
        """Whether it is reached under a name of its own."""
        return self.port is not None and bool(self.route.hosts)

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


def faults(data: object) -> list[str]:
    """Say all that is wrong with the shape of `app_services`, each with its whole path and never with a value."""
    if not isinstance(data, dict):
        return ["Expected `object` - at `app_services`"]
    return [fault for name, body in data.items() for fault in _faults(body, Service, f"app_services.{name}")]


def _faults(data: object, shape: Any, path: str) -> Iterator[str]:
    struct, within = struct_in(shape)
    match data:
        case dict() if struct and within is None:
            yield from _struct_faults(data, struct, path)
        case dict() if struct and within is dict:
            for key, value in data.items():
                yield from _faults(value, struct, f"{path}.{key}")
        case list() if struct and within is list:
            for position, value in enumerate(data):
                yield from _faults(value, struct, f"{path}[{position}]")
        case _:
            yield from _fault(data, shape, path)


def _struct_faults(data: dict[str, object], struct: type[msgspec.Struct], path: str) -> Iterator[str]:
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    found = []
    for key in data:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f", did you mean `{close[0]}`?" if close else ""
            found.append(f"Object contains unknown field `{key}`{hint} - at `{path}`")
    for name, field in fields.items():
        if name in data:
            found += _faults(data[name], field.type, f"{path}.{name}")
        elif field.required:
            found.append(f"Object missing required field `{name}` - at `{path}`")
    # What only shows when all of its fields are right.
    yield from found or _fault(data, struct, path)


def _fault(data: object, shape: Any, path: str) -> Iterator[str]:
    try:
        msgspec.convert(data, shape)
    except msgspec.ValidationError as error:
        said, _, inner = str(error).partition(" - at `$")
        yield f"{said} - at `{path}{inner.rstrip('`')}`"


def struct_in(shape: Any) -> tuple[type[msgspec.Struct] | None, type | None]:
    """The struct that a type is made of, if any, and whether it stands in a list or a mapping of such."""
    if isinstance(shape, type) and issubclass(shape, msgspec.Struct):
        return shape, None
    if isinstance(shape, UnionType):
        return next((found for found in map(struct_in, get_args(shape)) if found[0]), (None, None))
    if (origin := get_origin(shape)) in (list, dict):
        return struct_in(get_args(shape)[-1])[0], origin
    return None, None
