"""From the contract to the files of a release: pure data shaping, used by the Jinja filters on the controller."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

import msgspec

from slipway import __version__, documents
from slipway.contract import ConfigFile, Service, decode_services
from slipway.errors import UsageError
from slipway.release import (
    CERTIFICATES,
    COMPOSE_FILE,
    LABEL_NAME,
    LABEL_RELEASE,
    LABEL_SERVICE,
    LABEL_STACK,
    MIGRATE_ENV,
    NAME,
    NETWORK_VARIABLE,
    ONCE,
    ONCE_VARIABLE,
    File,
    Instance,
    Manifest,
    config_path,
    fingerprint,
    identity,
    instances,
    migrating,
    owner,
    project_of,
)
from slipway.secrets import held

LOGGING = {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}
"""Rotation of container logs, stated per container so that it holds on an engine that the kit did not set up."""

SUBNET = f"${{{NETWORK_VARIABLE}:?The engine notes a subnet in .env when it stages the release}}.0/24"


def render(
    services: object,
    *,
    name: str,
    environment: str,
    digests: dict[str, str],
    key: str,
) -> dict[str, Any]:
    """Render a release.

    `services` is the inventory's `app_services`, `digests` maps each service to `sha256:…`, `key` is the
    environment's fingerprint key. The answer holds `manifest` (without the Compose file's fingerprint, see
    :func:`finish`), `files` and `compose`, the Compose document to lay out. Raises :class:`UsageError` for a
    name that Compose would refuse and msgspec.ValidationError for a contract of the wrong shape.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a slipway_name.",
            "Use 2 to 41 lower-case letters, digits and dashes, a letter first.",
        )
    contract = decode_services(services)
    images = {service: f"{spec.image}@{digests[service]}" for service, spec in contract.items()}
    files = [
        _file(service, config)
        for name_, spec in contract.items()
        for service, config in [
            *((name_, config) for config in spec.config_files),
            *((migrating(name_), config) for config in _migrate_files(spec)),
        ]
    ]
    files += [file for service, spec in contract.items() for file in _edge_files(service, spec)]
    compose = _compose(name, environment, contract, images)
    release_id = identity(
        name=name,
        environment=environment,
        images=images,
        services={service: _promises(spec) for service, spec in contract.items()},
        compose=compose,
        files=files,
        key=key,
    )
    manifest = Manifest(
        name=name,
        environment=environment,
        id=release_id,
        kit=__version__,
        images=images,
        tags={service: spec.tag or "(by digest)" for service, spec in contract.items()},
        fingerprints={file.path: fingerprint(key, file.content) for file in files},
        services={service: _without_secrets(spec) for service, spec in contract.items()},
        secrets={name: fingerprint(key, value) for name, value in held(files, _secret_env(contract)).items()},
        owner=owner(key, name),
    )
    return {
        "manifest": msgspec.to_builtins(manifest),
        "files": msgspec.to_builtins(files),
        "compose": _named(compose, name, release_id),
    }


def finish(rendered: dict[str, Any], compose_text: str, key: str) -> dict[str, Any]:
    """Join the laid-out Compose file to what :func:`render` gave.

    The answer holds `release`, which has no secret in it and may be logged, and `contents`, file -> text, which may
    not: Ansible keeps the two in different arguments of the module that ships them.
    """
    manifest = {
        **rendered["manifest"],
        "fingerprints": {
            **rendered["manifest"]["fingerprints"],
            COMPOSE_FILE: fingerprint(key, compose_text),
        },
    }
    # 0400: where an application takes secrets only through its environment, they stand in this file.
    compose_file = {"path": COMPOSE_FILE, "content": compose_text, "mode": "0400", "uid": 0, "gid": 0}
    files = [*rendered["files"], compose_file]
    return {
        "release": {
            "manifest": manifest,
            "files": [{name: value for name, value in file.items() if name != "content"} for file in files],
        },
        "contents": {file["path"]: file["content"] for file in files},
    }


def front(services: object, *, name: str, key: str) -> dict[str, Any]:
    """What a host of the edge tier is told of an environment: the contract of every service that has names.

    The answer holds `front`, which has no secret in it and may be logged, and `certificates`, file -> text, which may
    not. `services`, `name` and `key` are as in :func:`render`. Raises msgspec.ValidationError.
    """
    public = {service: spec for service, spec in decode_services(services).items() if spec.public}
    files = [file for service, spec in public.items() for file in _edge_files(service, spec)]
    return {
        "front": {
            "name": name,
            "services": {service: msgspec.to_builtins(_without_secrets(spec)) for service, spec in public.items()},
            "fingerprints": {file.path: fingerprint(key, file.content) for file in files},
        },
        "certificates": {posixpath.basename(file.path): file.content for file in files},
    }


def _edge_files(service: str, spec: Service) -> Iterator[File]:
    """What the edge reads as files; root alone may."""
    tls = spec.route.tls
    if tls is None:
        return
    for ending, content in (("crt", tls.certificate), ("key", tls.key), ("ca", tls.ca)):
        if content:
            yield File(path=f"{CERTIFICATES}/{service}.{ending}", content=content)


def _file(service: str, config: ConfigFile) -> File:
    return File(
        path=config_path(service, config.path),
        content=_config_text(config),
        mode=config.mode,
        uid=config.uid,
        gid=config.gid,
    )


def _migrate_files(spec: Service) -> Iterator[ConfigFile]:
    """What the commands of `migrate` alone see: files, and as one more file what is put into their environment."""
    if spec.migrate is None:
        return
    yield from spec.migrate.config_files
    if spec.migrate.secret_env:
        yield ConfigFile(path=MIGRATE_ENV, content={"secret_env": spec.migrate.secret_env}, mode="0400")


def _config_text(config: ConfigFile) -> str:
    if isinstance(config.content, str):
        return config.content
    return documents.lay_out(config.path, config.content)


def _secret_env(contract: dict[str, Service]) -> dict[str, dict[str, str]]:
    return {service: spec.secret_env for service, spec in contract.items()}


def _without_secrets(spec: Service) -> Service:
    secret_env = dict.fromkeys(spec.secret_env, "")
    route = spec.route
    if route.tls:
        # Both are files of the release. The key is a secret, and a certificate says nothing without it.
        route = msgspec.structs.replace(route, tls=msgspec.structs.replace(route.tls, certificate="", key=""))
    migrate = spec.migrate
    if migrate:
        migrate = msgspec.structs.replace(migrate, config_files=[], secret_env=dict.fromkeys(migrate.secret_env, ""))
    return msgspec.structs.replace(
        spec, config_files=[], config_schema=[], env={}, secret_env=secret_env, route=route, migrate=migrate
    )


def _promises(spec: Service) -> Service:
    """The contract without what people call the image by, and without what is only checked before a deploy."""
    return msgspec.structs.replace(_without_secrets(spec), tag="", digest="", required_env=[])


def _named(compose: dict[str, Any], name: str, release_id: str) -> dict[str, Any]:
    services = {
        service: {**body, "labels": {**body["labels"], LABEL_RELEASE: release_id}}
        for service, body in compose["services"].items()
    }
    return {"name": project_of(name, release_id), **compose, "services": services}


def _compose(name: str, environment: str, contract: dict[str, Service], images: dict[str, str]) -> dict[str, Any]:
    # Volumes are made by the engine, with the owner that the contract states, and outlive every release.
    volumes = {
        volume: {"name": f"{name}-{volume}", "external": True} for spec in contract.values() for volume in spec.volumes
    }
    labels = {LABEL_NAME: name, LABEL_STACK: "app"}
    names: dict[str, list[str]] = {}
    for one in instances(contract):
        names.setdefault(one.service, []).append(one.name)
    jobs = [Instance(service, service, ONCE) for service, spec in contract.items() if spec.kind == "job"]
    services = {
        one.name: {
            **_service(one.service, contract[one.service], images[one.service], names),
            "networks": {
                "default": {"ipv4_address": _address(one.number), "aliases": [one.service]},
                **{network: {} for network in contract[one.service].networks},
            },
            "labels": {**labels, "org.slipway.environment": environment, LABEL_SERVICE: one.service},
        }
        for one in [*instances(contract), *jobs]
    }
    network = {"ipam": {"config": [{"subnet": SUBNET}]}, "labels": labels}
    others = {network: {"name": network, "external": True} for spec in contract.values() for network in spec.networks}
    networks = {"default": network, **others}
    return {"services": services, "networks": networks} | ({"volumes": volumes} if volumes else {})


def _service(service: str, spec: Service, image: str, names: dict[str, list[str]]) -> dict[str, Any]:
    mounts = [
        {
            "type": "bind",
            "source": f"./{config_path(service, config.path)}",
            "target": config.path,
            "read_only": True,
            "bind": {"create_host_path": False},
        }
        for config in spec.config_files
    ] + [
        {"type": "volume", "source": volume, "target": body.path} | ({"read_only": True} if body.read_only else {})
        for volume, body in spec.volumes.items()
    ]
    body: dict[str, Any] = {
        "image": image,
        "command": _literal(spec.command),
        "entrypoint": _literal(spec.entrypoint),
        "user": spec.user,
        "init": spec.init,
        "restart": "no" if spec.kind == "job" else "unless-stopped",
        # Such a service is started by nothing but a run of its own.
        "profiles": ["job"] if spec.kind == "job" else [],
        "healthcheck": {"disable": True} if spec.health and not spec.health.image_check else {},
        "stop_grace_period": f"{spec.stop_grace_period:g}s",
        "read_only": spec.read_only,
        "tmpfs": [_owned(entry, spec.user) for entry in spec.tmpfs],
        "cap_drop": ["ALL"],
        "cap_add": spec.cap_add,
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": spec.resources.memory,
        "cpus": spec.resources.cpus,
        "pids_limit": spec.resources.pids,
        "environment": {
            key: _literal(documents.env_text(value)) for key, value in (spec.env | spec.secret_env).items()
        },
        "volumes": mounts,
        "depends_on": [name for other in spec.needs for name in names[other]],
        "logging": LOGGING,
    }
    return {key: value for key, value in body.items() if value not in (None, [], {})}


def _address(number: int) -> str:
    return f"${{{NETWORK_VARIABLE}}}.${{{ONCE_VARIABLE}:-{number}}}"


def _owned(entry: str, user: str) -> str:
    """A tmpfs that the container's user may write to: over a folder of the image it has that one's owner and mode."""
    path, _, options = entry.partition(":")
    uid, _, gid = user.partition(":")
    return entry if "uid=" in options else f"{path}:{options}{',' * bool(options)}uid={uid},gid={gid}"


def _literal(value: Any) -> Any:
    """Double each `$`, which Compose would otherwise read as the start of a variable."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return value
