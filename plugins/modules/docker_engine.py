#!/usr/bin/python3
"""The Docker engine of a host, brought to run with its configuration."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.docker_host import FILES, look_at_host

DOCUMENTATION = """
module: docker_engine
short_description: Start, restart or reload the Docker engine of a host
description:
  - Has systemd start, restart or reload the engine and start it at boot; without an init system, slipway-dockerd.
  - An engine that runs then has taken its configuration over, so the mark goes that it was still to do so.
  - Answers what docker_host_info finds then.
attributes:
  check_mode:
    support: full
options:
  state:
    type: str
    choices: [started, restarted, reloaded]
    required: true
    description: What to have the engine do.
  pending:
    type: path
    default: /etc/slipway/docker.pending
    description: The mark that a changed configuration was written and not yet taken over by the engine.
author: Slipway
"""

EXAMPLES = """
- name: Restart the engine
  docker_engine:
    state: restarted
  register: __docker_host
"""

RETURN = """
engine:
  type: dict
  returned: always
  description: As of docker_host_info, which says what else there is.
"""

VERBS = {"started": "start", "restarted": "restart", "reloaded": "reload"}
UNITS = ("docker.service", "docker.socket")


def by_systemd(module: AnsibleModule, state: str) -> bool:
    """Have systemd bring the engine there; whether it had to do something."""

    def ask(*words: str) -> int:
        return int(module.run_command(["systemctl", *words])[0])

    # systemd would otherwise count failed starts against this one.
    ask("reset-failed", *UNITS)
    changed = False
    if ask("is-enabled", "--quiet", "docker.service"):
        module.run_command(["systemctl", "enable", "docker.service"], check_rc=True)
        changed = True
    if state == "started" and not ask("is-active", "--quiet", "docker.service"):
        return changed
    module.run_command(["systemctl", VERBS[state], "docker.service"], check_rc=True)
    return True


def without_init_system(module: AnsibleModule, state: str) -> bool:
    """The same by the kit's own program."""
    _, out, _ = module.run_command(["/usr/local/sbin/slipway-dockerd", VERBS[state]], check_rc=True)
    return bool(out)


def main() -> None:
    """Bring the engine there, and look at it."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(VERBS), "required": True},
            "pending": {"type": "path", "default": FILES["pending"]},
        },
        supports_check_mode=True,
    )
    state, pending = module.params["state"], Path(module.params["pending"])
    changed = True
    if not module.check_mode:
        bring = by_systemd if Path("/run/systemd/system").is_dir() else without_init_system
        changed = bring(module, state)
        pending.unlink(missing_ok=True)
    files = {name: Path(path) for name, path in FILES.items()}
    module.exit_json(changed=changed, **look_at_host(module, {**files, "pending": pending}))


if __name__ == "__main__":
    main()
