#!/usr/bin/python
"""Thin front to `slipway backup` and `slipway drill`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_backup
short_description: Back an environment up to its archive, or restore a backup on trial
description:
  - A backup is of the database, verified before it leaves, and of the volumes that the contract marks with C(backup).
  - A drill brings a backup from the archive, restores it to scratch databases and reads its volumes whole.
author: Slipway
options:
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  state:
    description: What is done.
    type: str
    choices: [present, drilled]
    default: present
  backup:
    description: Of a drill, the backup; its first digits are enough, and empty is the newest.
    type: str
    default: ""
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
  check_mode: {support: full, description: Says what would be done.}
  diff_mode: {support: none, description: There is nothing to compare.}
  idempotent: {support: none, description: Each time another backup is taken.}
"""

EXAMPLES = r"""
- name: Back up
  slipway_backup:
    name: shop-production
    run: 20250101T120000
    by: alice
"""

RETURN = r"""
backup:
  description: The id of the backup.
  type: str
  returned: when there is something to back up
"""
