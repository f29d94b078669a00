"""What the docker role decides: where the engine comes from, its configuration, and what a change of it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

DEBIAN_WITHOUT_COMPOSE = {"12": "trixie"}
"""Debian versions whose own engine is too old, and the suite whose four packages install on them as they are."""

SUPPORTED = {"12", "13"}
PACKAGES = {
    "distro": ["docker.io", "docker-cli", "docker-compose", "docker-buildx"],
    "upstream": ["docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin", "docker-buildx-plugin"],
}
RELOADABLE = {
    "debug",
    "features",
    "insecure-registries",
    "labels",
    "live-restore",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "registry-mirrors",
    "runtimes",
    "shutdown-timeout",
}
"""Keys of daemon.json that dockerd takes over on SIGHUP (its own list); any other key needs a restart."""


RENEW = "If the kit installed it, run with docker_upgrade=true; otherwise upgrade it, or remove it and run again."


def docker_plan(
    host: Mapping[str, Any],
    *,
    source: str,
    environment: str = "",
    upstream_url: str = "",
    upstream_answers: bool = False,
) -> dict[str, Any]:
    """Decide what the role does on `host` (the answer of docker_host_info).

    Returns `problem` (a sentence, or empty), `foreign` (the engine was there before the kit and is left alone),
    `source` (distro or upstream), `packages`, `install`, and `sibling` (apt sources to add, on Debian 12 only).
    """
    plan: dict[str, Any] = {
        "problem": "",
        "foreign": False,
        "source": "",
        "packages": [],
        "install": False,
        "sibling": [],
    }
    if host["distribution"] != "debian" or host["version"] not in SUPPORTED:
        plan["problem"] = (
            f"This host runs {host['name']}, and the kit supports Debian 12 and 13. "
            "Use a host with one of these; nothing was changed."
        )
        return plan
    recorded = host["record"].get("source", "")
    if not recorded and (host["installed"] or host["engine"]["answers"]):
        plan["foreign"] = True
        return plan
    if source == "auto" and environment != "local":
        plan["problem"] = (
            "docker_source is auto, which is for the environment local alone: elsewhere a deploy must not depend on "
            "what answers today. Set docker_source to upstream or distro."
        )
    elif source != "auto" and recorded and source != recorded:
        plan["problem"] = (
            f"This host's engine was installed with docker_source {recorded}, and the inventory says {source}. "
            f"Set docker_source to {recorded}, or remove the engine and /etc/slipway/docker.json by hand first."
        )
    elif source == "upstream" and not upstream_url:
        plan["problem"] = (
            "docker_source is upstream, and docker_upstream_url is empty. "
            "Set docker_upstream_url and docker_upstream_key, or set docker_source to distro."
        )
    if plan["problem"]:
        return plan
    chosen = source if source != "auto" else recorded or ("upstream" if upstream_answers else "distro")
    plan["source"] = chosen
    plan["packages"] = PACKAGES[chosen]
    # A plugin that is missing tells of an installation that was cut off.
    plan["install"] = not (host["installed"] and host["engine"]["compose"] and host["engine"]["buildx"])
    wanted = DEBIAN_WITHOUT_COMPOSE.get(host["version"]) if chosen == "distro" else None
    if wanted:
        plan["sibling"] = sibling_suite(host["sources"], host["suite"], wanted)
        if not plan["sibling"]:
            plan["problem"] = (
                f"apt on this host has no source for its own suite {host['suite']}, so there is no mirror to take "
                "Docker from. Put the suite back into /etc/apt/sources.list.d."
            )
    return plan


def sibling_suite(sources: Sequence[Mapping[str, Any]], own: str, wanted: str) -> list[dict[str, Any]]:
    """Say where the mirrors that serve this machine's `own` suite keep the suite `wanted` and its security updates.

    Returns apt sources with uris, suites, components and signed_by; empty when the own suite has no source.
    """
    found = []
    for ending in ("", "-security"):
        for entry in sources:
            if "deb" in entry["types"] and own + ending in entry["suites"] and "main" in entry["components"]:
                found.append({**entry, "types": ["deb"], "suites": [wanted + ending], "components": ["main"]})
                break
    return found if found and found[0]["suites"] == [wanted] else []


def docker_daemon_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out daemon.json from the role's variables (without their prefix); empty settings are left out."""
    config: dict[str, Any] = {
        "log-driver": settings["log_driver"],
        "log-opts": {"max-size": settings["log_max_size"], "max-file": str(settings["log_max_files"])},
        "live-restore": settings["live_restore"],
    }
    optional = {
        "default-address-pools": settings["address_pools"],
        "registry-mirrors": settings["registry_mirrors"],
        "insecure-registries": settings["insecure_registries"],
        "data-root": settings["data_root"],
        "storage-driver": settings["storage_driver"],
    }
    config.update({key: value for key, value in optional.items() if value})
    config.update(settings["daemon_options"])
    return dict(sorted(config.items()))


def docker_daemon_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say what taking over `new` asks of a running dockerd: none, reload (SIGHUP) or restart."""
    changed = {key for key in {*old, *new} if old.get(key) != new.get(key)}
    if not changed:
        return "none"
    return "reload" if changed <= RELOADABLE else "restart"


def docker_next_state(host: Mapping[str, Any], config: Mapping[str, Any], *, foreign: bool, renewed: bool) -> str:
    """Say what to ask of the service so that the engine runs with `config`: started, restarted, reloaded or nothing.

    `renewed` tells that packages or trusted certificates are newer than the running dockerd.
    """
    if not host["engine"]["answers"]:
        return "started"
    if foreign:
        return ""
    if renewed or host["pending"]:
        return "restarted"
    change = docker_daemon_change(host["daemon_config"], config)
    return {"none": "", "reload": "reloaded", "restart": "restarted"}[change]


def docker_registry_trust(registries: Sequence[Mapping[str, Any]], have: Mapping[str, str]) -> dict[str, Any]:
    """Say which certificates of registries to `write` (registry to PEM) and of which registries to `remove` them."""
    wanted = {entry["host"]: entry["ca"].strip() + "\n" for entry in registries if entry.get("ca")}
    return {
        "write": {host: ca for host, ca in wanted.items() if have.get(host) != ca},
        "remove": sorted(have.keys() - wanted.keys()),
    }


def docker_too_old(engine: Mapping[str, Any], minimum: Mapping[str, str]) -> str:
    """Say in one sentence which part of an engine that answers is missing or too old; empty when none is."""
    names = {"version": "Docker engine", "compose": "Docker Compose plugin", "buildx": "Docker buildx plugin"}
    for part, least in minimum.items():
        have = engine[part]
        if not have:
            return f"The {names[part]} is missing on this host, and the kit needs {least} or newer. {RENEW}"
        if _numbers(have) < _numbers(least):
            return f"The {names[part]} on this host is {have}, and the kit needs {least} or newer. {RENEW}"
    return ""


def _numbers(version: str) -> list[int]:
    """The leading numbers of a version: 2.26.1-4 -> [2, 26, 1]."""
    numbers = []
    for part in version.lstrip("v").replace("-", ".").replace("+", ".").split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return numbers


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "docker_plan": docker_plan,
            "docker_daemon_config": docker_daemon_config,
            "docker_daemon_change": docker_daemon_change,
            "docker_next_state": docker_next_state,
            "docker_registry_trust": docker_registry_trust,
            "docker_too_old": docker_too_old,
        }
