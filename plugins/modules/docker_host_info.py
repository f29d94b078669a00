#!/usr/bin/python3
"""What a host has for running containers, in one look that changes nothing."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.docker_host import FILES, look_at_host

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


def main() -> None:
    """Gather and answer."""
    module = AnsibleModule(
        argument_spec={name: {"type": "path", "default": path} for name, path in FILES.items()},
        supports_check_mode=True,
    )
    files = {name: Path(path) for name, path in module.params.items()}
    module.exit_json(changed=False, **look_at_host(module, files))


if __name__ == "__main__":
    main()
