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

from slipway import documents, once, plan, routes
from slipway.contract import ConfigFile, Migrate, Service, decode_services, faults
from slipway.registries import Registry, registry_of

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

MIN_SECRET = 32
"""Characters that a secret must have at least."""

PORTS = range(1, 65536)

MOVING_TAGS = frozenset({"", "latest", "dev"})
"""Tags that name something else tomorrow."""

CONNECT = re.compile(r"[A-Za-z0-9._-]+:[0-9]{1,5}")
NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
BUILT_IN = frozenset({"default", "bridge", "host", "none"})
"""Networks of Docker's own, and what Compose calls a release's own one."""

OF_COMMANDS = ("up", "plan", "pending_exit", "ahead", "head", "status", "revision", "sql", "dialect")
"""Keys of migrate that say something of commands."""

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
    found, contract = read_contract(services)
    if len(fingerprint_key) < MIN_SECRET:
        found.append(
            f"release_fingerprint_key is shorter than {MIN_SECRET} characters. "
            "Generate a longer one: openssl rand -hex 32."
        )
    for name, service in contract.items():
        found += _embedded(name, service, hosts)
        found += _pinned(name, service, strategy, lock)
    return found


UNREADABLE = Service(image="unreadable", tag="unreadable", user="1:1")
"""Stands for a service of the wrong shape, where others name it."""


def read_contract(services: object) -> tuple[list[str], dict[str, Service]]:
    """All that is wrong with a contract by itself, whatever the environment is, and the services that can be read."""
    if not isinstance(services, dict) or not services:
        # Where it is no mapping at all, the shape says so.
        none = ["The inventory declares no service. Describe at least one in app_services."]
        return [_wrong(fault) for fault in faults(services)] or none, {}
    wrong = {name: faults({name: body}) for name, body in services.items()}
    found = [_wrong(fault) for said in wrong.values() for fault in said]
    contract = decode_services({name: body for name, body in services.items() if not wrong[name]})
    return found + _problems(contract, dict.fromkeys(wrong, UNREADABLE) | contract), contract


def _wrong(fault: str) -> str:
    return f"The contract in app_services is wrong: {fault}. Compare it with docs/configure.md."


def _problems(readable: Mapping[str, Service], contract: Mapping[str, Service]) -> list[str]:
    found = [*_host_ports(contract), *routes.problems(contract)]
    for name, service in readable.items():
        found += _kind(name, service)
        found += _port(name, service)
        found += _release(name, service, contract)
        found += _image(name, service)
        found += _user(name, service)
        found += _environment(name, service)
        found += _health(name, service)
        found += _migrate(name, service)
        found += _config(name, service)
        found += _needs(name, service, contract)
        found += _networks(name, service)
    return [*found, *_circles(contract)]


def warnings(contract: Mapping[str, Service]) -> list[str]:
    """What a contract allows and people should know of before it is deployed."""
    return [
        f"{name} runs as root in its container, as app_services.{name}.allow_root says it has to. "
        "A user of its own would be safer."
        for name, service in contract.items()
        if _is_root(service) and service.allow_root
    ]


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


def _kind(name: str, service: Service) -> Iterator[str]:
    where = f"app_services.{name}"
    if service.kind == "web":
        return
    if service.port is not None:
        yield f"{where} is a {service.kind} and has a port. Leave the port out, or make it kind: web."
    if service.kind == "worker":
        return
    if service.migrate is None:
        yield f"{where} is a job and has no migrate, so it would never run. State what it does in {where}.migrate."
    if service.replicas != 1 or service.needs:
        has = "needs" if service.needs else "replicas"
        yield f"{where} is a job and has {has}, but it runs alone and before all services. Leave {has} out."


def _health(name: str, service: Service) -> Iterator[str]:
    probe = service.health.database if service.health else None
    if probe is None:
        return
    where = f"app_services.{name}.health.database"
    if bool(probe.command) == bool(probe.connect):
        yield f"{where} has {'both' if probe.command else 'none of'} command and connect. Give it one of them."
    elif probe.connect and not CONNECT.fullmatch(probe.connect):
        yield f'{where}.connect is not of the form host:port. Write it like "db.example:5432".'


def _migrate(name: str, service: Service) -> Iterator[str]:
    migrate = service.migrate
    if migrate is None:
        return
    where = f"app_services.{name}.migrate"
    yield from _once(where, migrate, service) if migrate.once else _commands(where, migrate)
    for key in ("revision", "ahead"):
        pattern = getattr(migrate, key)
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            yield f"{where}.{key} is no regular expression: {error}. Correct it."
            continue
        if key == "revision" and pattern and groups != 1:
            yield f"{where}.revision has {groups} groups. Put the revision itself, and nothing else, into one: (...)."
    if migrate.on_rollback == "down" and not migrate.down:
        yield f"{where}.on_rollback is down, and there is no command for it. State it in {where}.down."
    if migrate.on_rollback == "restore" and migrate.backup in (None, "none"):
        yield (f"{where}.on_rollback is restore, and nothing is backed up. State the commands in {where}.backup.")


def _commands(where: str, migrate: Migrate) -> Iterator[str]:
    for key in ("up", "status"):
        if not getattr(migrate, key):
            yield f"{where} has no {key}. State the command, or the SQL files in {where}.once."
    if migrate.plan and migrate.head:
        yield f"{where} has both plan and head. Keep plan, which tells more."
    if migrate.pending_exit and not (migrate.plan and migrate.revision):
        lacks = "revision" if migrate.plan else "plan"
        yield f"{where} has pending_exit and no {lacks}. State it: else a failure could pass for something pending."
    if migrate.sql and not migrate.dialect:
        yield f"{where} has sql and no dialect. Say whether it is sqlite or postgresql."


def _once(where: str, migrate: Migrate, service: Service) -> Iterator[str]:
    if extra := [key for key in OF_COMMANDS if getattr(migrate, key)]:
        yield f"{where} has once and {', '.join(extra)}. SQL files need no commands: leave the rest out."
    content = {config.path: config.content for config in service.config_files}
    for path in migrate.once:
        if path not in content:
            yield f"{where}.once names {path}, which is none of its config_files. Add it there."
        elif not isinstance(content[path], str):
            yield f"{path} is to be SQL and its content is no text. Give the text of the file."
    names = [once.name(path) for path in migrate.once]
    for file in sorted({file for file in names if names.count(file) > 1}):
        yield f"{where}.once has two files called {file}, by which they are noted. Rename one of them."


def _networks(name: str, service: Service) -> Iterator[str]:
    for network in service.networks:
        if not NETWORK.fullmatch(network) or network in BUILT_IN:
            yield (
                f"app_services.{name}.networks names {network!r}, which no service can join. "
                "Name one that `docker network create` has made."
            )


def _circles(contract: Mapping[str, Service]) -> Iterator[str]:
    try:
        plan.waves({name: service.needs for name, service in contract.items()})
    except ValueError as error:
        yield f"Services wait for each other to be healthy: {error}. Take one of their needs out of app_services."


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


def _image(name: str, service: Service) -> Iterator[str]:
    if not service.tag and not service.digest:
        yield f"app_services.{name} names neither a tag nor a digest. Pin the image that you want to run."


def _pinned(name: str, service: Service, strategy: Strategy, lock: Lock) -> Iterator[str]:
    where = f"app_services.{name}"
    if strategy == "mutable" or service.digest or not service.tag:
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
        _ = service.uid_gid
    except ValueError:
        yield f'app_services.{name}.user is not of the form "uid:gid". Write numbers, for example "1001:1001".'
        return
    if _is_root(service) and not service.allow_root:
        yield (
            f"app_services.{name} would run as root. Give it the image's own unprivileged uid:gid, "
            "or allow_root: true where the image knows no other user."
        )


def _is_root(service: Service) -> bool:
    try:
        return service.uid_gid[0] == 0
    except ValueError:
        return False


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
    for variable, text in (service.env | service.secret_env).items():
        if not variable or "=" in variable or "\0" in f"{variable}{text}":
            yield (
                f"The variable {variable!r} of {name} is none that an environment can hold. "
                "Its name is without =, and neither name nor value with a NUL."
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
        yield from _laid_out(config)


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


def _laid_out(config: ConfigFile) -> Iterator[str]:
    """A file that is no document, or is called as if it were one of another kind, is read by nobody."""
    content = config.content
    wanted = config.format or (
        "text" if isinstance(content, str) else "env" if documents.is_env(config.path) else "json"
    )
    if wanted == "text" and not isinstance(content, str):
        yield f"{config.path} has the format text, and its content is none. Give it text, or another format."
    elif wanted == "json" and documents.is_env(config.path):
        yield f"{config.path} has the format json and is called like an env file. Name it like what it is."
    elif wanted == "json" and isinstance(content, str) and not _is_json(content):
        yield f"{config.path} has the format json, and its content is text that is no JSON. Correct the text."
    elif wanted == "env":
        yield from _env_file(config)


def _env_file(config: ConfigFile) -> Iterator[str]:
    if not documents.is_env(config.path):
        yield f"{config.path} has the format env, by which a host knows it only when its name ends in .env. Rename it."
    if not isinstance(config.content, dict):
        yield f"{config.path} has the format env, and its content is no mapping. Write NAME: value for each variable."
        return
    for name, value in config.content.items():
        if not documents.ENV_NAME.fullmatch(name):
            yield f"{config.path} has the variable {name!r}, which is no name. Use letters, digits and underscores."
        elif not isinstance(value, str | int | float | bool) or "\0" in str(value):
            yield f"{config.path} has a value for {name} that is no text. Give it text, a number, true or false."


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


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
        elif contract[other].kind == "job":
            yield f"The service {name} needs {other}, a job, and jobs run before all services anyhow. Drop the need."


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
