#!/usr/bin/python
"""Thin front to `slipway revoke`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_revoke
short_description: Mark older values of secrets as leaked, so that no rollback restores them
description:
  - Marks every value of the secrets that releases on the host hold, other than that of the release that serves. So a
    secret is rotated and deployed first; where today's value is the only one, this is refused.
author: Slipway
options:
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  secrets:
    description: Names of secrets, such as C(api:env:API_TOKEN) or C(api:/app/config/app.json#auth.jwtSecret).
    type: list
    elements: str
    required: true
  reason:
    description: Why, for the ledger.
    type: str
    required: true
  wait:
    description: Seconds to wait for another run to end.
    type: float
    default: 0
  run:
    description: Id of this run of the playbook, for the ledger.
    type: str
    required: true
  by:
    description: Who runs it, for the ledger.
    type: str
    required: true
attributes:
  check_mode: {support: full, description: Says which values would be marked.}
  diff_mode: {support: none, description: No value of a secret is shown.}
  idempotent: {support: full, description: What is marked already is left alone.}
"""

EXAMPLES = r"""
- name: Never restore the token that leaked
  slipway_revoke:
    name: shop-production
    secrets: [api:env:API_TOKEN]
    reason: was in a ticket
    run: 20250101T120000
    by: alice
"""

RETURN = r"""
revoked:
  description: Secret to the releases on the host that hold a value which is marked now.
  type: dict
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.engine import call


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            # They are names; Ansible would take it for a mistake that the list is shown.
            "secrets": {"type": "list", "elements": "str", "required": True, "no_log": False},
            "reason": {"type": "str", "required": True},
            "wait": {"type": "float", "default": 0},
            "run": {"type": "str", "required": True},
            "by": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    arguments = [f"--name={given['name']}", f"--run={given['run']}", f"--by={given['by']}", f"--wait={given['wait']}"]
    answer = call(module, "revoke", *arguments, f"--reason={given['reason']}", "--", *given["secrets"])
    module.exit_json(**answer, msg=answer["said"])


if __name__ == "__main__":
    main()
