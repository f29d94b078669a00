"""What a host has for running containers, in one look that changes nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from ansible.module_utils.apt_sources import read_sources
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.os_release import read_os_release

FILES = {
    "daemon_config": "/etc/docker/daemon.json",
    "record": "/etc/slipway/docker.json",
    "pending": "/etc/slipway/docker.pending",
    "ca_file": "/usr/local/share/ca-certificates/slipway.crt",
    "certs": "/etc/docker/certs.d",
}
"""Where a host keeps what the kit looks at."""
SOCKET = "unix:///var/run/docker.sock"


def read_json(file: Path) -> dict[str, object]:
    """Read a JSON object; empty when the file is not there or does not hold one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_newer(file: Path, other: Path) -> bool:
    """Whether `file` exists and was written after `other`, or `other` does not exist."""
    return file.exists() and (not other.exists() or file.stat().st_mtime > other.stat().st_mtime)


def look_at_engine(module: AnsibleModule) -> dict[str, object]:
    """Ask the engine on this host's own socket, whatever DOCKER_HOST or a context says."""
    nothing = {"answers": False, "version": "", "compose": "", "buildx": "", "problem": "There is no docker command."}
    docker = module.get_bin_path("docker")
    if docker is None:
        return nothing
    _, out, err = module.run_command([docker, "--host", SOCKET, "info", "--format", "{{json .}}"])
    try:
        info = json.loads(out)
    except ValueError:
        return {**nothing, "problem": err.strip()}
    plugins = {plugin["Name"]: plugin.get("Version", "") for plugin in info.get("ClientInfo", {}).get("Plugins") or []}
    return {
        "answers": bool(info.get("ServerVersion")),
        "version": info.get("ServerVersion") or "",
        "compose": plugins.get("compose", "").lstrip("v"),
        "buildx": plugins.get("buildx", "").lstrip("v"),
        "problem": " ".join(info.get("ServerErrors") or []),
    }


def look_at_host(module: AnsibleModule, files: dict[str, Path]) -> dict[str, object]:
    """Look; `files` says where a host keeps what the options of docker_host_info name."""
    release = read_os_release(Path("/etc/os-release"))
    return {
        "distribution": release.get("ID", ""),
        "version": release.get("VERSION_ID", ""),
        "suite": release.get("VERSION_CODENAME", ""),
        "name": release.get("PRETTY_NAME", "an unknown system"),
        "systemd": Path("/run/systemd/system").is_dir(),
        "sources": [dataclasses.asdict(source) for source in read_sources()],
        "installed": module.get_bin_path("dockerd") is not None,
        "ca_stale": is_newer(files["ca_file"], Path("/etc/ssl/certs/ca-certificates.crt")),
        "registry_cas": {path.parent.name: path.read_text() for path in files["certs"].glob("*/slipway.crt")},
        "pending": files["pending"].exists(),
        "daemon_config": read_json(files["daemon_config"]),
        "record": read_json(files["record"]),
        "engine": look_at_engine(module),
    }
