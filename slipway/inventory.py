"""The half of preflight that needs no host: is what the inventory says complete, consistent and safe to deploy?

Everything here is pure. Each finding is one sentence on what is wrong and one on what to do, and none of them
repeats a value, since values may be secrets.
"""

from __future__ import annotations

import posixpath
import re
import ssl
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from slipway import routes
from slipway.contract import ConfigFile, Service, decode_services
from slipway.registries import Registry, registry_of

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

MIN_SECRET = 32
"""Characters that a secret must have at least."""

PORTS = range(1, 65536)

MOVING_TAGS = frozenset({"", "latest", "dev"})
"""Tags that name something else tomorrow."""

REGISTRY = re.compile(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?")

Strategy = Literal["mutable", "immutable"]
MUTABLE = frozenset({"local", "development"})
"""Environments whose tags may name another image tomorrow, where the inventory says nothing else."""

Lock = Mapping[str, Mapping[str, str]]
"""Repository -> tag -> digest."""


def strategy_of(environment: str) -> Strategy:
    """How an environment's tags are taken where its inventory does not say."""
    return "mutable" if environment in MUTABLE else "immutable"


def problems(services: object, *, strategy: Strategy, lock: Lock, fingerprint_key: str, hosts: int = 1) -> list[str]:
    """Say all that keeps `services` (the inventory's `app_services`) from being deployed; an empty list is a yes.

    `hosts` is how many the group `app` has.
    """
    try:
        contract = decode_services(services)
    except msgspec.ValidationError as error:
        return [f"The contract in app_services is wrong: {error}. Compare it with docs/configure.md."]
    if not contract:
        return ["The inventory declares no service. Describe at least one in app_services."]
    found = [*_host_ports(contract), *routes.problems(contract)]
    if len(fingerprint_key) < MIN_SECRET:
        found.append(
            f"release_fingerprint_key is shorter than {MIN_SECRET} characters. "
            "Generate a longer one: openssl rand -hex 32."
        )
    for name, service in contract.items():
        found += _port(name, service)
        found += _release(name, service, contract)
        found += _embedded(name, service, hosts)
        found += _image(name, service, strategy, lock)
        found += _user(name, service)
        found += _environment(name, service)
        found += _config(name, service)
        found += _needs(name, service, contract)
    return found


def registry_problems(registries: object) -> list[str]:
    """Say all that is wrong with the inventory's `docker_registries`."""
    try:
        entries = msgspec.convert(registries, list[Registry])
    except msgspec.ValidationError as error:
        return [f"docker_registries is wrong: {error}. Compare it with docs/registries.md."]
    found = []
    for position, entry in enumerate(entries):
        if not REGISTRY.fullmatch(entry.host) or registry_of(f"{entry.host}/image") != entry.host:
            # Not repeated: a URL may hold a password.
            found.append(
                f"docker_registries[{position}].host is no registry as image references write it. "
                "Write HOST or HOST:PORT, without https:// and without a path."
            )
        else:
            found += _registry(entry)
    hosts = [entry.host for entry in entries]
    twice = sorted({host for host in hosts if hosts.count(host) > 1})
    return found + [f"docker_registries has {host} twice. Keep one of the two." for host in twice]


def _registry(entry: Registry) -> Iterator[str]:
    if bool(entry.username) != bool(entry.password):
        has, lacks = ("username", "password") if entry.username else ("password", "username")
        yield (
            f"docker_registries has a {has} and no {lacks} for {entry.host}. "
            "Give both, the password from the vault, or neither."
        )
    if ":" in entry.username:
        yield f"The username of {entry.host} in docker_registries has a colon in it. Correct it: no login can have one."
    if entry.ca:
        try:
            ssl.create_default_context(cadata=entry.ca)
        except ssl.SSLError:
            yield (
                f"The ca of {entry.host} in docker_registries is no certificate in PEM. "
                "Give the text of the file: \"{{ lookup('ansible.builtin.file', …) }}\"."
            )


def _release(name: str, service: Service, contract: Mapping[str, Service]) -> Iterator[str]:
    """What a release needs to know of a service to start it beside another one, and to go back."""
    where = f"app_services.{name}"
    if service.replicas < 1:
        yield f"{where}.replicas is {service.replicas}. Give it 1 or more, or remove the service."
    for replica in range(2, service.replicas + 1):
        if f"{name}-{replica}" in contract:
            yield f"A replica of {name} would be called {name}-{replica}, as another service is. Rename that one."
    for other in service.needs:
        if service.update == "overlap" and other in contract and contract[other].update == "recreate":
            yield (
                f"{name} starts beside the old release and needs {other}, which does not. "
                f"Give both the same update in app_services."
            )
    migrate = service.migrate
    if migrate is None:
        return
    if migrate.sql and not migrate.dialect:
        yield f"{where}.migrate has sql and no dialect. Say whether it is sqlite or postgresql."
    if migrate.on_rollback == "down" and not migrate.down:
        yield f"{where}.migrate.on_rollback is down, and there is no command for it. State it in {where}.migrate.down."
    if migrate.on_rollback == "restore" and migrate.backup in (None, "none"):
        yield (
            f"{where}.migrate.on_rollback is restore, and nothing is backed up. "
            f"State the commands in {where}.migrate.backup."
        )


def _embedded(name: str, service: Service, hosts: int) -> Iterator[str]:
    """A database that is a file on a volume is on one host, and another host would have another one."""
    if hosts > 1 and service.migrate and service.migrate.dialect == "sqlite":
        yield (
            f"The service {name} keeps its database in a file on its host (SQLite), and the group app has {hosts} "
            "hosts, which would each have one of their own. Give it a PostgreSQL server (app_database, "
            "docs/database.md), or leave one host in the group app."
        )


def _port(name: str, service: Service) -> Iterator[str]:
    where = f"app_services.{name}"
    for port in (service.port, service.publish):
        if port is not None and port not in PORTS:
            yield f"{where} names the port {port}, which is none. Use a number from 1 to 65535."
    if service.port is None and (service.health or service.publish is not None):
        has = "health" if service.health else "publish"
        yield f"{where} has {has} and no port. Add the port that it listens on."


def _host_ports(contract: Mapping[str, Service]) -> Iterator[str]:
    taken: dict[int, str] = {}
    for name, service in contract.items():
        port = service.host_port
        if port is None:
            continue
        if port in taken:
            yield (
                f"Services {taken[port]} and {name} both publish port {port}. "
                f"Give one of them another number in app_services.{name}.publish."
            )
        taken[port] = name


def _image(name: str, service: Service, strategy: Strategy, lock: Lock) -> Iterator[str]:
    where = f"app_services.{name}"
    if not service.tag and not service.digest:
        yield f"{where} names neither a tag nor a digest. Pin the image that you want to run."
        return
    if strategy == "mutable" or service.digest:
        return
    if service.tag in MOVING_TAGS:
        yield (
            f"{where} deploys the moving tag {service.tag!r} in an environment whose tags are immutable. "
            "Name a version, for example 1.4.2-build.7."
        )
    elif service.tag not in lock.get(service.image, {}):
        yield (
            f"The tag {service.tag!r} of {service.image} is not in the environment's images.lock.yml. "
            "Add its digest there, so that the same image is deployed everywhere."
        )


def _user(name: str, service: Service) -> Iterator[str]:
    try:
        uid, _ = service.uid_gid
    except ValueError:
        yield f'app_services.{name}.user is not of the form "uid:gid". Write numbers, for example "1001:1001".'
        return
    if uid == 0:
        yield f"app_services.{name} would run as root. Give it the image's own unprivileged uid:gid."


def _environment(name: str, service: Service) -> Iterator[str]:
    for variable in service.required_env:
        if variable not in service.env and variable not in service.secret_env:
            yield f"The service {name} needs {variable} in its environment. Set it in app_services.{name}.env."
    migrating = service.migrate.secret_env if service.migrate else {}
    for variable, value in {**service.secret_env, **migrating}.items():
        if len(value) < MIN_SECRET:
            yield (
                f"The secret {variable} of {name} is shorter than {MIN_SECRET} characters. "
                "Generate a longer one: openssl rand -hex 32."
            )


def _config(name: str, service: Service) -> Iterator[str]:
    files = {config.path: config for config in service.config_files}
    for wanted in service.config_schema:
        if wanted.path in files:
            findings = _against_schema(files[wanted.path], wanted.schema)
            yield from (f"{wanted.path}: {finding}" for finding in findings)
            continue
        folder, missing = posixpath.split(wanted.path)
        beside = sorted(posixpath.basename(path) for path in files if posixpath.dirname(path) == folder)
        there = f"beside it the inventory has {', '.join(beside)}" if beside else "the inventory has none beside it"
        yield (
            f"The service {name} needs the config file {wanted.path}, and {there}. "
            f"Add {missing} to app_services.{name}.config_files."
        )
    paths = [config.path for config in service.config_files]
    for path in sorted({path for path in paths if paths.count(path) > 1}):
        yield f"app_services.{name}.config_files has {path} twice. Keep one of them."
    migrating = service.migrate.config_files if service.migrate else []
    for config in [*service.config_files, *migrating]:
        yield from _readable(config, service)


def _readable(config: ConfigFile, service: Service) -> Iterator[str]:
    try:
        uid, gid = service.uid_gid
    except ValueError:
        # A user that is no pair of numbers has its own sentence.
        return
    if not re.fullmatch("0?[0-7]{3}", config.mode):
        yield f'{config.path} has the mode {config.mode!r}. Write it as an octal number in quotes, for example "0440".'
    elif not _may_read(config, uid, gid):
        yield (
            f"{config.path} would have mode {config.mode} and owner {config.uid}:{config.gid}, "
            f"which the container's user {service.user} cannot read. Give it gid {gid} and mode 0440."
        )


def _may_read(config: ConfigFile, uid: int, gid: int) -> bool:
    mode = int(config.mode, 8)
    if uid == config.uid:
        return bool(mode & stat.S_IRUSR)
    if gid == config.gid:
        return bool(mode & stat.S_IRGRP)
    return bool(mode & stat.S_IROTH)


def _needs(name: str, service: Service, contract: Mapping[str, Service]) -> Iterator[str]:
    for other in service.needs:
        if other not in contract:
            yield f"The service {name} needs {other}, which app_services does not have. Add it or drop the need."


def _against_schema(config: ConfigFile, schema: dict[str, Any]) -> Iterator[str]:
    content = config.content
    if isinstance(content, str):
        try:
            content = msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            yield f"it is not JSON ({error}). Correct the file and run the play again."
            return
    # Imported here because it takes a quarter of a second, and Ansible loads its filters anew for each task.
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    validator = Draft202012Validator(schema)
    findings = sorted(validator.iter_errors(content), key=lambda finding: finding.json_path)
    yield from map(_sentence, findings)


def _sentence(finding: ValidationError) -> str:
    """Put a schema error into words without the value, which jsonschema's own message would quote."""
    at = finding.json_path
    rule: Any = finding.validator_value
    schema: Any = finding.schema
    content: Any = finding.instance
    match finding.validator:
        case "required":
            said = f"lacks {', '.join(sorted(set(rule) - set(content)))}. Add what is missing."
        case "additionalProperties":
            extra = sorted(set(content) - set(schema.get("properties", {})))
            said = f"has the unknown key {extra[0]}. Remove it, or correct its spelling."
            if len(extra) > 1:
                said = f"has the unknown keys {', '.join(extra)}. Remove them, or correct their spelling."
        case "minLength":
            said = f"is shorter than {rule} characters. Give it a longer value."
        case "type":
            said = f"is not of type {rule if isinstance(rule, str) else ' or '.join(rule)}. Correct the value."
        case "pattern" if "description" in schema:
            said = f"does not have the form {schema['description']}. Correct the value."
        case "enum":
            said = f"is none of {', '.join(map(str, rule))}. Choose one of them."
        case keyword:
            said = f"breaks the rule {keyword!r} of its schema. Correct the value."
    return f"{at} {said}"
