"""One call of the `slipway` engine on the host, for the thin modules in plugins/modules/.

Runs on the host's own Python, so it imports nothing but Ansible's module helpers: the engine lives in its own
virtual environment and is reached as a program, the way an operator reaches it.
"""

from __future__ import annotations

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

ENGINE = "/opt/slipway/venv/bin/slipway"
ENVIRONMENTS = "/srv/slipway"
PROTOCOL = 1
USAGE = 64


def call(
    module: AnsibleModule, verb: str, *arguments: str, bare_is_fine: bool = False, **request: object
) -> dict[str, object]:
    """Run `slipway <verb> --json` with the request on stdin, or with arguments as people give them; return its answer.

    A host without an engine is an error, except in check mode: there the engine would have been installed by the
    tasks before, so the answer says that nothing more can be foretold. `bare_is_fine` is for stopping and
    removing: a host that has neither engine nor environments is as declared.
    """
    if not Path(ENGINE).exists():
        if bare_is_fine and not Path(ENVIRONMENTS).exists():
            return {"changed": False}
        if module.check_mode:
            module.exit_json(
                changed=True, msg=f"The engine is not installed yet, so `{verb}` cannot be planned further."
            )
        module.fail_json(msg=f"There is no engine at {ENGINE}. Run playbooks/provision.yml for this host.")
    payload = json.dumps({"protocol": PROTOCOL, "check": module.check_mode, **request})
    if arguments and module.check_mode:
        arguments = ("--check", *arguments)
    code, out, err = module.run_command([ENGINE, verb, "--json", *arguments], data=payload, binary_data=True)
    try:
        answer = json.loads(out)
    except ValueError:
        module.fail_json(
            msg=f"The engine broke off while it ran `{verb}`. Read its last words below, then run the play again.",
            rc=code,
            stderr=err,
        )
    if answer.get("protocol") != PROTOCOL:
        module.fail_json(
            msg=f"The engine speaks protocol {answer.get('protocol')}, this kit speaks {PROTOCOL}. "
            "Run playbooks/provision.yml for this host."
        )
    if not answer["ok"] and answer["exit"] == USAGE and module.check_mode:
        # An engine that does not know the request is one that the real run replaces first.
        module.exit_json(changed=True, msg=f"The engine will be replaced, so `{verb}` cannot be planned further.")
    if not answer["ok"]:
        module.fail_json(msg=f"{answer['what']} {answer['do_next']}", details=answer["details"], exit=answer["exit"])
    return answer
