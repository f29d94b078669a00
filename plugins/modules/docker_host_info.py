#!/usr/bin/python3
"""What a host has for running containers, in one look that changes nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from ansible.module_utils.apt_sources import read_sources
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.os_release import read_os_release

DOCUMENTATION = """
module: docker_host_info
short_description: Tell what a host has for running containers
description:
  - Reads the operating system, the init system, apt's sources and the Docker engine of a host in one call.
  - Needs neither gathered facts nor a Docker engine.
attributes:
  check_mode:
    support: full
    description: It only reads.
options:
  daemon_config:
    type: path
    default: /etc/docker/daemon.json
    description: The engine's configuration file.
  record:
    type: path
    default: /etc/slipway/docker.json
    description: Where the kit keeps which source the engine was installed from.
  pending:
    type: path
    default: /etc/slipway/docker.pending
    description: The mark that a changed configuration was written and not yet taken over by the engine.
  ca_file:
    type: path
    default: /usr/local/share/ca-certificates/slipway.crt
    description: Where the certificates lie that the kit adds to those the host trusts.
  certs:
    type: path
    default: /etc/docker/certs.d
    description: Where the engine looks for the certificates of registries, a folder for each.
author: Slipway
"""

EXAMPLES = """
- name: Look at the host
  docker_host_info:
  register: __docker_host
"""

RETURN = """
distribution:
  type: str
  returned: always
  description: ID of os-release, for example V(debian).
version:
  type: str
  returned: always
  description: VERSION_ID of os-release, for example V(13); empty for a rolling distribution.
suite:
  type: str
  returned: always
  description: VERSION_CODENAME of os-release, for example V(trixie).
name:
  type: str
  returned: always
  description: PRETTY_NAME of os-release.
systemd:
  type: bool
  returned: always
  description: Whether systemd is the init system that runs.
sources:
  type: list
  elements: dict
  returned: always
  description: What apt fetches from, each with uris, suites, components, signed_by and types.
installed:
  type: bool
  returned: always
  description: Whether there is a dockerd on the host.
ca_stale:
  type: bool
  returned: always
  description: Whether the certificates that the kit adds are newer than the bundle made of them.
registry_cas:
  type: dict
  returned: always
  description: Registry to the certificate that the kit has the engine trust for it.
pending:
  type: bool
  returned: always
  description: Whether an earlier run was cut off between writing a configuration and having it taken over.
daemon_config:
  type: dict
  returned: always
  description: The engine's configuration as it stands; empty when there is none.
record:
  type: dict
  returned: always
  description: What the kit recorded when it installed the engine; empty when it did not.
engine:
  type: dict
  returned: always
  description: C(answers), C(version), C(compose), C(buildx), C(problem); versions are empty where there is none.
"""

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


def main() -> None:
    """Gather and answer."""
    module = AnsibleModule(
        argument_spec={
            "daemon_config": {"type": "path", "default": "/etc/docker/daemon.json"},
            "record": {"type": "path", "default": "/etc/slipway/docker.json"},
            "pending": {"type": "path", "default": "/etc/slipway/docker.pending"},
            "ca_file": {"type": "path", "default": "/usr/local/share/ca-certificates/slipway.crt"},
            "certs": {"type": "path", "default": "/etc/docker/certs.d"},
        },
        supports_check_mode=True,
    )
    release = read_os_release(Path("/etc/os-release"))
    files = {name: Path(path) for name, path in module.params.items()}
    module.exit_json(
        changed=False,
        distribution=release.get("ID", ""),
        version=release.get("VERSION_ID", ""),
        suite=release.get("VERSION_CODENAME", ""),
        name=release.get("PRETTY_NAME", "an unknown system"),
        systemd=Path("/run/systemd/system").is_dir(),
        sources=[dataclasses.asdict(source) for source in read_sources()],
        installed=module.get_bin_path("dockerd") is not None,
        ca_stale=is_newer(files["ca_file"], Path("/etc/ssl/certs/ca-certificates.crt")),
        registry_cas={path.parent.name: path.read_text() for path in files["certs"].glob("*/slipway.crt")},
        pending=files["pending"].exists(),
        daemon_config=read_json(files["daemon_config"]),
        record=read_json(files["record"]),
        engine=look_at_engine(module),
    )


if __name__ == "__main__":
    main()
