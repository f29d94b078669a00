#!/usr/bin/python
"""Thin front to `slipway report`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_status
short_description: How an environment stands on this host
description:
  - What `slipway status` shows, as data. Changes nothing.
author: Slipway
options:
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: There is nothing to compare.}
  idempotent: {support: full, description: It only looks.}
"""

EXAMPLES = r"""
- name: Look at the environment
  slipway_status:
    name: shop-production
"""

RETURN = r"""
status:
  description: Release, schema, complaint (empty when healthy) and services with state, tag, image, url and since.
  type: dict
  returned: when the engine is there
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.engine import call


def main() -> None:
    module = AnsibleModule(
        argument_spec={"name": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    module.exit_json(**call(module, "report", name=module.params["name"]))


if __name__ == "__main__":
    main()
