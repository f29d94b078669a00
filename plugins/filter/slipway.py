"""Data shaping for the roles: from the inventory's contract to what a host is asked to do. All of it is pure."""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml
from ansible.errors import AnsibleFilterError

# The kit's own package lies beside its plugins; the controller need not have it installed.
KIT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(KIT))

from slipway import fleet, inventory, release, render
from slipway.contract import decode_services
from slipway.errors import SlipwayError

ENGINE_SOURCES = ("slipway/**/*.py", "pyproject.toml", "requirements-engine.txt")


def plain(data: Any) -> Any:
    """Copy Ansible's lazy, tagged containers into dicts, lists and strings that other libraries understand."""
    match data:
        case Mapping():
            return {str(key): plain(value) for key, value in data.items()}
        case bool() | None:
            return data
        case str():
            return str(data)
        case int():
            return int(data)
        case float():
            return float(data)
        case Sequence():
            return [plain(value) for value in data]
        case _:
            raise AnsibleFilterError(f"A value of type {type(data).__name__} has no place in a contract.")


def slipway_engine_key(kit: str) -> str:
    """Name the engine that the kit at folder `kit` would install: 12 hex digits over its sources and locked needs."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in ENGINE_SOURCES for path in Path(kit).glob(pattern)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(kit)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def slipway_problems(
    services: object, strategy: inventory.Strategy, lock: inventory.Lock, key: str, hosts: int
) -> list[str]:
    """All that is wrong with an inventory's contract, a sentence or two each; see slipway.inventory."""
    return inventory.problems(services, strategy=strategy, lock=lock, fingerprint_key=key, hosts=hosts)


def slipway_tag_strategy(environment: str) -> inventory.Strategy:
    """How an environment's tags are taken where its inventory does not say; see slipway.inventory."""
    return inventory.strategy_of(environment)


def slipway_lease_seconds(services: object, soak: float) -> float:
    """Seconds that a host keeps the lease of a run while others take the release; see slipway.fleet."""
    drains = [service.drain_seconds for service in decode_services(services).values()]
    return fleet.lease_seconds(soak=float(soak), drains=drains)


def slipway_newest_tag(lock: Mapping[str, Mapping[str, str]], repository: str) -> str:
    """The tag that was pushed last, or `unbuilt` before the first push.

    The lock keeps the newest push last and names its version before its commit; an image of files that were not
    committed has the tag `dev` alone.
    """
    tags = lock.get(repository, {})
    if not tags:
        return "unbuilt"
    newest = list(tags.values())[-1]
    return next(tag for tag, digest in tags.items() if digest == newest)


def slipway_wanted_images(services: object, lock: inventory.Lock) -> dict[str, dict[str, str]]:
    """Service -> repository, tag and digest, the digest empty where neither contract nor lock pins it."""
    return {
        name: {
            "repository": service.image,
            "tag": service.tag,
            "digest": service.digest or lock.get(service.image, {}).get(service.tag, ""),
        }
        for name, service in decode_services(services).items()
    }


def slipway_owner(key: str, name: str) -> str:
    """Tell the inventory with this fingerprint key from others that have an environment `name`; see slipway.release."""
    return release.owner(str(key), str(name))


def slipway_registry_problems(registries: object) -> list[str]:
    """All that is wrong with the inventory's registries; see slipway.inventory."""
    return inventory.registry_problems(registries)


def slipway_ports(services: object) -> dict[str, int]:
    """Service -> the loopback port that it publishes on the host."""
    contract = decode_services(services)
    return {name: service.host_port for name, service in contract.items() if service.host_port is not None}


def slipway_networks(services: object) -> list[str]:
    """The Docker networks that services join and that have to be there."""
    return sorted({network for service in decode_services(services).values() for network in service.networks})


def slipway_warnings(services: object) -> list[str]:
    """What an inventory's contract allows and people should know of; see slipway.inventory."""
    return inventory.warnings(decode_services(services))


def slipway_render(services: object, name: str, environment: str, digests: dict[str, str], key: str) -> dict[str, Any]:
    """Render a release; see slipway.render."""
    try:
        return render.render(services, name=name, environment=environment, digests=digests, key=key)
    except (SlipwayError, msgspec.ValidationError) as error:
        raise AnsibleFilterError(str(error)) from error


class _Quoting(yaml.SafeDumper):
    """Puts every text between quotes, whatever it is: readers of YAML do not agree on what is a number.

    To Compose the text 1e3 without quotes is 1000, to Python's reader it is a text.
    """

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"')

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        for key, _ in node.value:
            # Names of the kit's own and of variables, which nobody reads as anything else, stay legible.
            if PLAIN_KEY.fullmatch(key.value):
                key.style = None
        return node


_Quoting.add_representer(str, _Quoting.represent_str)
PLAIN_KEY = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)$)[A-Za-z_][A-Za-z0-9_.-]*", re.IGNORECASE)


def slipway_compose_text(document: object) -> str:
    """Lay out a Compose document, so that Compose reads each text as it is."""
    text: str = yaml.dump(document, Dumper=_Quoting, sort_keys=False, allow_unicode=True, width=200)
    return text


def slipway_front(services: object, name: str, key: str) -> dict[str, Any]:
    """What a host of the edge tier is told of an environment; see slipway.render."""
    try:
        return render.front(services, name=name, key=key)
    except msgspec.ValidationError as error:
        raise AnsibleFilterError(str(error)) from error


def slipway_balancers(groups: Mapping[str, Sequence[str]]) -> list[str]:
    """The hosts of the edge tier: those of the group `edge` that are no app hosts, and have an edge anyhow."""
    return [host for host in groups.get("edge", []) if host not in groups.get("app", [])]


def slipway_tier(addresses: Mapping[str, str], balancers: Sequence[str], host: str) -> str:
    """What the edge of an app host is told of the tier before it; empty where there is none.

    `addresses` maps each of the hosts to its private address.
    """
    if not balancers or host in balancers:
        return ""
    return f"{addresses[host]} for {' '.join(addresses[one] for one in balancers)}"


def slipway_unreachable(addresses: Mapping[str, str]) -> list[str]:
    """The hosts of `addresses` that have no IPv4 address there."""
    return [host for host, address in addresses.items() if not _is_address(address)]


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def slipway_finish(rendered: dict[str, Any], compose_text: str, key: str) -> dict[str, Any]:
    """Join the laid-out Compose file to a rendered release; see slipway.render."""
    return render.finish(rendered, compose_text, key)


def on_plain_data(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a filter plain arguments, whatever Ansible hands over."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        return function(*map(plain, arguments), **{name: plain(value) for name, value in named.items()})

    return wrapped


class FilterModule:
    """Makes the filters known to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Names the filters of this file."""
        filters = (
            slipway_balancers,
            slipway_compose_text,
            slipway_engine_key,
            slipway_finish,
            slipway_front,
            slipway_lease_seconds,
            slipway_networks,
            slipway_newest_tag,
            slipway_owner,
            slipway_ports,
            slipway_problems,
            slipway_registry_problems,
            slipway_render,
            slipway_tag_strategy,
            slipway_tier,
            slipway_unreachable,
            slipway_wanted_images,
            slipway_warnings,
        )
        return {function.__name__: on_plain_data(function) for function in filters}
