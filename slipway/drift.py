"""Drift: what a release declares, held against what is found on its host, field by field.

Declared is the release's Compose document as Compose itself reads it on this host; found is what the daemon says of
each container. Both are brought to one shape, and shapes are compared. Of the environment only names are told: a
value may be a secret.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from slipway.contract import Migrate
from slipway.daemon import LABEL_ONE_OFF, LABEL_SERVICE, Daemon
from slipway.edge import Edge
from slipway.errors import SlipwayError
from slipway.ledger import Ledger
from slipway.release import COMPOSE_FILE, LABEL_RELEASE, Manifest
from slipway.revisions import revision_of
from slipway.store import Store, hold
from slipway.switch import Traffic

ABSENT = "absent"
ANONYMOUS = "a volume without a name"
ANONYMOUS_NAME = 64
"""Length of the name that Docker gives to a volume without one."""
RUNS = ("running", "restarting")
SECRET_FIELDS = frozenset({"environment"})
QUESTION_PATIENCE = 10.0
"""Seconds that a database may take to tell its revision."""
UNKNOWN = "unknown"
"""Starts what is found where the revision could not be asked for."""

Shape = Mapping[str, str | Mapping[str, str]]
"""Field -> its value as text, or name -> value where a field has several."""


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not as declared."""

    where: str
    """A container by its name in Compose, a file, `edge`, …"""
    field: str
    declared: str
    found: str


# --- what there is to know, and who is asked --------------------------------------------------------------------------


def look(
    store: Store,
    daemon: Daemon,
    manifest: Manifest,
    document: Callable[[], dict[str, Any]],
    *,
    at_work: bool,
    ask_schema: bool,
) -> list[Difference]:
    """Hold what is on this host against the release that is current, whose Compose file says `document`.

    `at_work` says that a run holds the lease: a second release that runs is then its doing. `ask_schema` asks the
    database itself, in the running container, which takes as long as the application needs to answer.
    """
    bodies = daemon.inspect(store.name)
    images = {body["Image"]: daemon.image(body["Image"]) or {} for body in bodies}
    references = {
        (daemon.image(reference) or {}).get("Id", ""): reference for reference in set(manifest.images.values())
    }
    found = [Difference(path, "content", "as staged", how) for path, how in store.altered(manifest.id).items()]
    found += strangers(bodies, manifest.id, store.ids(), at_work=at_work)
    mine = release_containers(bodies, manifest.id)
    try:
        declared = document()
    except SlipwayError:
        found.append(Difference(COMPOSE_FILE, "content", "a Compose file", "nothing that Compose reads"))
    else:
        found += containers(declared, mine, images, references)
    found += _edge(store, manifest)
    if ask_schema:
        found += _schema(manifest, mine, Ledger(store.folder))
    return found


def release_containers(bodies: Sequence[Mapping[str, Any]], release: str) -> dict[str, Mapping[str, Any]]:
    """The containers of a release by their name in Compose, without one-shot runs."""
    return {
        _labels(body).get(LABEL_SERVICE, ""): body
        for body in bodies
        if _labels(body).get(LABEL_RELEASE) == release and not _is_one_off(body)
    }


def _edge(store: Store, manifest: Manifest) -> list[Difference]:
    edge = Edge(store.root)
    routed = any(spec.port for spec in manifest.services.values())
    if not edge.exists():
        return [Difference("edge", "stack", "present", ABSENT)] if routed else []
    release, wanted = edge.release(store.name), manifest.id if routed else None
    try:
        if release != wanted:
            return [Difference("edge", "route", wanted or "none", release or "none")]
        if not Traffic(store, edge).goes_to(manifest):
            return [Difference("edge", "site", "as the release says", "changed")]
        if not _is_loaded(store, edge):
            return [Difference("edge", "configuration", "as its files say", "another one is loaded")]
    except SlipwayError:
        return [Difference("edge", "state", "running", "does not answer")]
    return []


def _is_loaded(store: Store, edge: Edge) -> bool:
    if edge.agrees():
        return True
    # Another environment may be just between writing its site and having it loaded.
    with hold(store.root / "edge"):
        return edge.agrees()


def _schema(manifest: Manifest, containers: Mapping[str, Mapping[str, Any]], ledger: Ledger) -> list[Difference]:
    """The revision that the database is at, asked of the service that the ledger has it from: the last to migrate."""
    recorded = ledger.schema()
    asked = [
        (name, spec.migrate)
        for name, spec in manifest.services.items()
        # Any other one has no container that could be asked.
        if spec.migrate is not None and spec.migrate.status and spec.kind != "job"
    ]
    if not asked or not recorded:
        return []
    name, migrate = asked[-1]
    container = containers.get(name)
    if container is None or container["State"]["Status"] != "running":
        return [Difference(name, "schema", recorded, f"{UNKNOWN}: its container does not run")]
    revision = _ask(container, migrate)
    if revision == recorded or (revision.startswith(UNKNOWN) and ledger.outgrown(manifest.id)):
        # The contract said `on_rollback: skip`: it can run on a schema that it cannot name.
        return []
    return [Difference(name, "schema", recorded, revision)]


def _ask(container: Mapping[str, Any], migrate: Migrate) -> str:
    entrypoint = container["Config"]["Entrypoint"] if migrate.entrypoint is None else shlex.split(migrate.entrypoint)
    try:
        done = subprocess.run(
            ["docker", "exec", container["Id"], *(entrypoint or []), *migrate.status],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=QUESTION_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return f"{UNKNOWN}: no answer within {QUESTION_PATIENCE:g} seconds"
    if done.returncode:
        return f"{UNKNOWN}: `{' '.join(migrate.status)}` ended with exit code {done.returncode}"
    return revision_of(done.stdout, migrate)


# --- the comparison ---------------------------------------------------------------------------------------------------


def containers(
    document: Mapping[str, Any],
    found: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, Mapping[str, Any]],
    references: Mapping[str, str],
) -> list[Difference]:
    """Compare the services of a Compose document with the containers of that release.

    `found` maps a container's name in Compose to what `docker inspect` says of it, `images` an image's id to what is
    said of the image, `references` an image's id to the reference that the release has for it.
    """
    # One with a profile is run for itself and at no other time.
    services = {name: body for name, body in document["services"].items() if not body.get("profiles")}
    answer = [Difference(name, "container", "present", ABSENT) for name in services if name not in found]
    answer += [Difference(name, "container", ABSENT, "present") for name in sorted(found.keys() - services.keys())]
    for name, body in services.items():
        if name in found:
            image = images.get(found[name]["Image"], {})
            declared = _declared(body, document, image.get("Config") or {})
            answer += compare(name, declared, _found(found[name], references))
    return answer


def strangers(
    bodies: Sequence[Mapping[str, Any]], current: str, releases: Collection[str], *, at_work: bool
) -> list[Difference]:
    """Containers under the environment's label that should not be there, or should not run."""
    answer = []
    for body in bodies:
        name, release = body["Name"].lstrip("/"), _labels(body).get(LABEL_RELEASE, "")
        if release not in releases:
            answer.append(Difference(name, "release", "one of this host", release or "none"))
        elif at_work or (release == current and not _is_one_off(body)):
            continue
        elif _is_one_off(body):
            answer.append(Difference(name, "container", ABSENT, "left by a call that was killed"))
        elif body["State"]["Status"] in RUNS:
            answer.append(Difference(name, "state", "stopped, kept to go back to", body["State"]["Status"]))
    return answer


def compare(where: str, declared: Shape, found: Shape) -> Iterator[Difference]:
    """The fields in which two shapes differ."""
    for field, wanted in declared.items():
        have = found[field]
        if isinstance(wanted, Mapping) and isinstance(have, Mapping):
            for name in sorted(wanted.keys() | have.keys()):
                if wanted.get(name) != have.get(name):
                    told = _masked if field in SECRET_FIELDS else _told
                    yield Difference(where, f"{field} {name}", *told(wanted.get(name), have.get(name)))
        elif wanted != have:
            yield Difference(where, field, str(wanted), str(have))


def _told(declared: str | None, found: str | None) -> tuple[str, str]:
    return (ABSENT if declared is None else declared, ABSENT if found is None else found)


def _masked(declared: str | None, found: str | None) -> tuple[str, str]:
    if declared is None or found is None:
        return (ABSENT if declared is None else "set", ABSENT if found is None else "set")
    return ("set", "set to another value")


def _declared(service: Mapping[str, Any], document: Mapping[str, Any], image: Mapping[str, Any]) -> Shape:
    """The shape of a service in a Compose document that runs in an `image`, whose settings it builds on."""
    entrypoint, command = service.get("entrypoint"), service.get("command")
    if command is None and entrypoint is None:
        command = image.get("Cmd")
    mounts = {mount["target"]: _declared_mount(mount, document) for mount in service.get("volumes") or []}
    return {
        "state": "running",
        "image": service["image"],
        "entrypoint": shlex.join((image.get("Entrypoint") if entrypoint is None else entrypoint) or []),
        "command": shlex.join(command or []),
        "environment": _variables(image.get("Env")) | _texts(service.get("environment")),
        "user": service.get("user") or image.get("User") or "",
        "read_only": _yes(service.get("read_only")),
        "privileged": _yes(service.get("privileged")),
        "init": _yes(service.get("init")),
        "cap_add": _capabilities(service.get("cap_add")),
        "cap_drop": _capabilities(service.get("cap_drop")),
        "security_opt": _options(service.get("security_opt")),
        "memory": _size(int(service.get("mem_limit") or 0)),
        "cpus": f"{float(service.get('cpus') or 0):g}",
        "pids": str(service.get("pids_limit") or 0),
        "restart": service.get("restart") or "no",
        "mount": dict.fromkeys(image.get("Volumes") or {}, ANONYMOUS) | mounts,
        "tmpfs": dict(_tmpfs(entry) for entry in service.get("tmpfs") or []),
        "network": _declared_networks(service, document),
        "port": {
            f"{port.get('host_ip', '')}:{port.get('published', '')}": f"{port['target']}/{port.get('protocol', 'tcp')}"
            for port in service.get("ports") or []
        },
    }


def _found(body: Mapping[str, Any], references: Mapping[str, str]) -> Shape:
    """The shape of a container."""
    config, host = body["Config"], body["HostConfig"]
    return {
        "state": body["State"]["Status"],
        "image": references.get(body["Image"]) or config["Image"],
        "entrypoint": shlex.join(config["Entrypoint"] or []),
        "command": shlex.join(config["Cmd"] or []),
        "environment": _variables(config["Env"]),
        "user": config["User"],
        "read_only": _yes(host["ReadonlyRootfs"]),
        "privileged": _yes(host["Privileged"]),
        "init": _yes(host.get("Init")),
        "cap_add": _capabilities(host["CapAdd"]),
        "cap_drop": _capabilities(host["CapDrop"]),
        "security_opt": _options(host["SecurityOpt"]),
        "memory": _size(host["Memory"]),
        "cpus": f"{host['NanoCpus'] / 1e9:g}",
        "pids": str(max(host["PidsLimit"] or 0, 0)),
        "restart": host["RestartPolicy"]["Name"] or "no",
        "mount": {mount["Destination"]: _found_mount(mount) for mount in body["Mounts"]},
        "tmpfs": dict(host.get("Tmpfs") or {}),
        "network": {
            name: (network["IPAMConfig"] or {}).get("IPv4Address", "")
            for name, network in body["NetworkSettings"]["Networks"].items()
        },
        "port": {
            f"{binding['HostIp']}:{binding['HostPort']}": port
            for port, bindings in (host["PortBindings"] or {}).items()
            for binding in bindings
        },
    }


def _declared_mount(mount: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    volume = document.get("volumes", {}).get(mount.get("source", ""), {})
    return _mount(mount["type"], volume.get("name") or mount.get("source", ""), bool(mount.get("read_only")))


def _found_mount(mount: Mapping[str, Any]) -> str:
    name = mount.get("Name", "")
    if mount["Type"] == "volume" and len(name) == ANONYMOUS_NAME:
        return ANONYMOUS
    return _mount(mount["Type"], name or mount["Source"], not mount["RW"])


def _mount(kind: str, source: str, read_only: bool) -> str:
    return f"{kind} {source}{', read-only' if read_only else ''}"


def _declared_networks(service: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, str]:
    """Name of the network -> the fixed address, or an empty text for any. Docker says it the same way."""
    if mode := service.get("network_mode"):
        return {mode: ""}
    names = {key: network["name"] for key, network in document.get("networks", {}).items()}
    joined = service.get("networks") or {}
    return {names[key]: (settings or {}).get("ipv4_address", "") for key, settings in joined.items()}


def _variables(listed: Sequence[str] | None) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in listed or [])


def _texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in (values or {}).items()}


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _capabilities(listed: Sequence[str] | None) -> str:
    # Newer engines write CAP_ before each.
    return ", ".join(sorted(name.upper().removeprefix("CAP_") for name in listed or [])) or "none"


def _options(listed: Sequence[str] | None) -> str:
    return ", ".join(sorted(option.replace("=", ":") for option in listed or [])) or "none"


def _size(octets: int) -> str:
    mebi = 1 << 20
    return f"{octets // mebi} MiB" if octets % mebi == 0 else f"{octets} bytes"


def _tmpfs(entry: str) -> tuple[str, str]:
    target, _, options = entry.partition(":")
    return target, options


def _labels(body: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = body["Config"]["Labels"] or {}
    return labels


def _is_one_off(body: Mapping[str, Any]) -> bool:
    return _labels(body).get(LABEL_ONE_OFF) == "True"
