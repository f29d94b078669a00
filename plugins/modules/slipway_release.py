#!/usr/bin/python
"""Thin front to the verbs of a deploy: `slipway stage`, `migrate`, `activate`, `verify`, `stop` and `destroy`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_release
short_description: Bring a release to a host, step by step
description:
  - C(staged) writes the release folder, pulls the images by digest and makes the volumes; nothing that runs is touched.
  - C(migrated) brings the database schema to what the release needs, in the release's own image.
  - C(active) makes the release serve behind its health gate; a release that fails it is taken back.
  - C(verified) checks that the release serves as declared, and fails where it does not.
  - C(stopped) stops what serves and keeps everything; C(absent) removes the environment with its data.
author: Slipway
options:
  state:
    description: What shall be true of the release.
    type: str
    required: true
    choices: [staged, migrated, active, verified, stopped, absent]
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  id:
    description: Id of the release, for I(state=migrated), C(active) and C(verified).
    type: str
  release:
    description: The manifest and the list of files as the filter C(slipway_finish) gives them, for I(state=staged).
    type: dict
  contents:
    description: File to its text, for I(state=staged). They may hold secrets, so they are never logged.
    type: dict
  run:
    description: Id of this run of the playbook; the ledger groups its entries by it.
    type: str
    required: true
  by:
    description: Who runs it, for the ledger.
    type: str
    required: true
attributes:
  check_mode: {support: full, description: Says what would be pulled, migrated, stopped and started.}
  diff_mode: {support: none, description: A release is immutable; a change is a new release with another id.}
  idempotent: {support: full, description: A release that is already in the wanted state is left alone.}
"""

EXAMPLES = r"""
- name: Make the release serve
  slipway_release:
    state: active
    name: shop-production
    id: 0f3a9c51d27be480
    run: 20250101T120000
    by: alice
"""

RETURN = r"""
pulled:
  description: Images that were pulled.
  type: list
  returned: when I(state=staged)
serves:
  description: Whether the release serves as declared already; then there is nothing to migrate, activate or verify.
  type: bool
  returned: when I(state=staged)
status:
  description: How it stands, as the module slipway_status says it.
  type: dict
  returned: when I(state=staged) and it serves already
pending:
  description: Revisions that were applied (in check mode, that would be).
  type: list
  returned: when I(state=migrated)
schema:
  description: The revision that the database is at.
  type: str
  returned: when I(state=migrated)
stop:
  description: Releases that were stopped.
  type: list
  returned: when I(state=active) or C(stopped)
previous:
  description: The release that served before.
  type: str
  returned: when I(state=active)
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.engine import call

VERBS = {
    "staged": "stage",
    "migrated": "migrate",
    "active": "activate",
    "verified": "verify",
    "stopped": "stop",
    "absent": "destroy",
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": list(VERBS)},
            "name": {"type": "str", "required": True},
            "id": {"type": "str"},
            "release": {"type": "dict"},
            "contents": {"type": "dict", "no_log": True},
            "run": {"type": "str", "required": True},
            "by": {"type": "str", "required": True},
        },
        required_if=[
            ("state", "staged", ["release", "contents"]),
            ("state", "migrated", ["id"]),
            ("state", "active", ["id"]),
            ("state", "verified", ["id"]),
        ],
        supports_check_mode=True,
    )
    given = module.params
    request = {"run": given["run"], "by": given["by"]}
    if given["state"] == "staged":
        files = [{**file, "content": given["contents"][file["path"]]} for file in given["release"]["files"]]
        request["release"] = {**given["release"], "files": files}
    else:
        request["name"] = given["name"]
    if given["state"] in ("migrated", "active", "verified"):
        request["release"] = given["id"]
    bare_is_fine = given["state"] in ("stopped", "absent")
    module.exit_json(**call(module, VERBS[given["state"]], bare_is_fine=bare_is_fine, **request))


if __name__ == "__main__":
    main()
