"""What an inventory declares of its database, `app_database`, and how applications reach it. All of it is pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote, urlencode

import msgspec

MAJORS = range(13, 19)
"""Versions of PostgreSQL that are known here."""
BUILTIN_LOCALE = 17
"""The first that orders text itself, without a library's help."""
NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
"""What needs no quotes anywhere."""
RESERVED = frozenset({"postgres", "replication", "template0", "template1", "public", "all"})
EXTENSION = re.compile(r"[a-z][a-z0-9_-]*")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")

CA_PATH = "/etc/slipway/database-ca.crt"
"""Where an application finds the certificates of the authority, unless its contract says otherwise."""

Mode = Literal["embedded", "bundled", "external"]
Tls = Literal["verify-full", "verify-ca", "require", "disable"]


class Declared(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """`app_database` of an inventory."""

    mode: Mode = "embedded"
    """In a file of the application's, on a host of this inventory, or somebody else's server."""
    version: int = 17
    """The major version."""
    name: str = ""
    """Of the database; the environment's, where it says none."""
    user: str = ""
    """The role that the application runs as; the database's name, where it says none."""
    owner: str = ""
    """The role that migrates; `<user>_owner` in a bundled one, and the same as `user` in an external one."""
    host: str = ""
    port: int = 5432
    tls: Tls = "verify-full"
    ca: str = ""
    """For an external one: the authorities that its certificate may be of, in PEM; empty are those that all trust."""
    extensions: list[str] = []
    init_sql: str = ""
    url_scheme: str = "postgresql"
    backup: Literal["verified", "none"] = "verified"
    """`none` goes without an archive, also in production; it has to be said."""
    url_options: dict[str, str | int] = {}
    """What the application's driver wants in the URL beside `sslmode` and `sslrootcert`."""


class Connection(msgspec.Struct, kw_only=True, frozen=True):
    """How an application reaches its database. It holds secrets."""

    host: str
    port: int
    name: str
    user: str
    password: str
    owner: str
    owner_password: str
    tls: Tls
    url: str
    migrations_url: str
    """As the owner."""


def decode(data: object) -> Declared:
    """Read `app_database`. Raises msgspec.ValidationError, whose text names the key and no value."""
    return msgspec.convert(data, Declared)


def problems(
    data: object, *, environment: str, hosts: Sequence[str], apps: Sequence[str], addresses: Mapping[str, str]
) -> list[str]:
    """Say all that is wrong with it; an empty list is a yes.

    `hosts` are those of the group `database`, `apps` those of `app`; `addresses` maps each of them to its private one.
    """
    try:
        declared = decode(data)
    except msgspec.ValidationError as error:
        return [f"app_database is wrong: {error}. Compare it with docs/database.md."]
    if declared.mode == "embedded":
        # Whether it may be is for the contract of the service to say that has it.
        return []
    found = [*_names(declared, environment), *_values(declared)]
    if declared.mode == "external":
        return [*found, *_external(declared)]
    return [*found, *_bundled(declared, hosts, apps, addresses)]


def _names(declared: Declared, environment: str) -> Iterator[str]:
    names = {"name": name_of(declared, environment), "user": user_of(declared, environment)}
    names["owner"] = owner_of(declared, environment)
    for key, name in names.items():
        if not NAME.fullmatch(name) or name in RESERVED:
            yield (
                f"app_database.{key} is {name!r}, which cannot be a name. Use lower-case letters, digits and "
                "underscores, a letter first, and none that PostgreSQL has itself."
            )
    if declared.mode == "bundled" and names["owner"] == names["user"]:
        yield (
            "app_database.owner and app_database.user are the same role, so the application could change its own "
            "schema. Name two."
        )


def _values(declared: Declared) -> Iterator[str]:
    if declared.version not in MAJORS:
        yield (
            f"app_database.version is {declared.version}, which is no major version that is known here. "
            f"Use a number from {MAJORS.start} to {MAJORS.stop - 1}."
        )
    if not 1 <= declared.port <= 65535:  # noqa: PLR2004 - the last port
        yield f"app_database.port is {declared.port}, which is none. Use a number from 1 to 65535."
    for extension in declared.extensions:
        if not EXTENSION.fullmatch(extension):
            yield f"app_database.extensions has {extension!r}, which is no name of one. Correct it."
    if not SCHEME.fullmatch(declared.url_scheme):
        yield "app_database.url_scheme is none. Write postgresql, or postgresql+asyncpg, without ://."


def _external(declared: Declared) -> Iterator[str]:
    if not declared.host:
        yield "app_database.mode is external, and there is no host. Name the server in app_database.host."
    if declared.init_sql:
        yield (
            "app_database.init_sql is for a bundled database, and this one is external. Run the SQL there yourself, "
            "and take init_sql out."
        )


def _bundled(
    declared: Declared, hosts: Sequence[str], apps: Sequence[str], addresses: Mapping[str, str]
) -> Iterator[str]:
    if len(hosts) != 1:
        yield (
            f"app_database.mode is bundled, and the group database has {len(hosts)} hosts. Put one host into it; "
            "it may be an app host too."
        )
    if unknown := [host for host in [*hosts, *apps] if not addresses.get(host)]:
        yield (
            f"No address is known by which the database and the app hosts reach {', '.join(dict.fromkeys(unknown))}. "
            "Give each host of the groups app and database its host_private_address in the inventory."
        )
    if declared.tls != "verify-full":
        yield (
            f"app_database.tls is {declared.tls}, and the bundled database has a certificate that can be verified. "
            "Take tls out."
        )
    if declared.ca:
        yield "app_database.ca is for an external database; the bundled one has its own. Take it out."
    if declared.host and declared.host not in map(addresses.get, hosts) and declared.host not in hosts:
        yield (
            f"app_database.host is {declared.host}, which is not the host of the group database. Take it out: the kit "
            "knows where its database is."
        )


def name_of(declared: Declared, environment: str) -> str:
    """The database's name."""
    return declared.name or environment.replace("-", "_")


def user_of(declared: Declared, environment: str) -> str:
    """The role that the application runs as."""
    return declared.user or name_of(declared, environment)


def owner_of(declared: Declared, environment: str) -> str:
    """The role that migrates."""
    user = user_of(declared, environment)
    return declared.owner or (f"{user}_owner" if declared.mode == "bundled" else user)


def initdb_of(version: int) -> str:
    """How a cluster is made. Text is compared by code points, which no upgrade of a system changes."""
    # 17 has that order itself; before, it is the C library's, which has it for C.UTF-8 too.
    own = " --locale-provider=builtin --builtin-locale=C.UTF-8" if version >= BUILTIN_LOCALE else ""
    return f"--data-checksums --encoding=UTF8 --locale=C.UTF-8{own}"


def connection(
    declared: Declared, *, environment: str, address: str, password: str, owner_password: str, ca_path: str = CA_PATH
) -> Connection:
    """How to reach a database that is not embedded; `address` is that of the bundled one's host."""
    bundled = declared.mode == "bundled"
    user, owner = user_of(declared, environment), owner_of(declared, environment)
    if owner == user:
        owner_password = password
    options: dict[str, Any] = {"sslmode": declared.tls}
    if declared.tls.startswith("verify") and (bundled or declared.ca):
        options["sslrootcert"] = ca_path
    options |= declared.url_options

    def url(role: str, secret: str) -> str:
        return url_of(
            declared.url_scheme,
            user=role,
            password=secret,
            host=declared.host or address,
            port=declared.port,
            name=name_of(declared, environment),
            options=options,
        )

    return Connection(
        host=declared.host or address,
        port=declared.port,
        name=name_of(declared, environment),
        user=user,
        password=password,
        owner=owner,
        owner_password=owner_password,
        tls=declared.tls,
        url=url(user, password),
        migrations_url=url(owner, owner_password),
    )


def url_of(
    scheme: str, *, user: str, password: str, host: str, port: int, name: str, options: Mapping[str, Any]
) -> str:
    """A URL in which whatever has a meaning of its own there is percent-encoded."""
    where = f"[{host}]" if ":" in host else host
    said = urlencode(options, safe="/")
    who = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return f"{scheme}://{who}@{where}:{port}/{quote(name, safe='')}{f'?{said}' if said else ''}"


def secrets(declared: Declared, environment: str) -> dict[str, dict[str, str]]:
    """The secrets that the environment needs for it, as `app_secrets` declares them."""
    rotated = "A deploy has to follow at once: until then the application has the old one."
    if declared.mode == "bundled":
        return {
            "database_superuser_password": {"kind": "password"},
            "database_owner_password": {"kind": "password", "note": rotated},
            "database_password": {"kind": "password", "note": rotated},
            "database_replication_password": {"kind": "password"},
        }
    if declared.mode == "external":
        user, owner = user_of(declared, environment), owner_of(declared, environment)
        found = {"database_password": {"kind": "given", "note": f"The password of {user} on {declared.host}."}}
        if owner != user:
            found["database_owner_password"] = {"kind": "given", "note": f"The password of {owner} on {declared.host}."}
        return found
    return {}
