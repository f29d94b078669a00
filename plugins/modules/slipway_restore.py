#!/usr/bin/python
"""Thin front to `slipway restore`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_restore
short_description: Put a backup in the place of the live data
description:
  - Users are kept out meanwhile. A restore that fails puts back what was there; one that is cut off keeps deploys away
    until it is repeated.
  - Where an environment has several app hosts, each step is a call of its own.
author: Slipway
options:
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  step:
    description:
      - C(chosen) says which backup it would be and fails where its loss is not accepted; C(closed) keeps users out and
        stops what serves; C(restored) does all of it; C(opened) starts what does not run, and lets users in.
    type: str
    choices: [chosen, closed, restored, opened]
    default: restored
  backup:
    description: The backup; its first digits are enough, and empty is the newest that fits.
    type: str
    default: ""
  to:
    description: The newest from this time or before, in ISO 8601.
    type: str
    default: ""
  beside:
    description: The one of this host that goes with one that another host took at this time, in ISO 8601.
    type: str
    default: ""
  release:
    description: The newest of this release, which serves afterwards.
    type: str
    default: ""
  source:
    description: The inventory beside this one from whose archive the data comes.
    type: str
    default: ""
  as_it_is:
    description: Whether such data is taken without being anonymised.
    type: bool
    default: false
  confirm_data_loss:
    description: The id of the backup; what was written since is lost.
    type: str
    default: ""
  keep:
    description: Whether what is there now is backed up before.
    type: bool
    default: true
  database:
    description: Whether the database is restored, and not the volumes alone.
    type: bool
    default: true
  stay_closed:
    description: Whether users stay kept out.
    type: bool
    default: false
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
  check_mode: {support: full, description: Says what would be restored and lost.}
  diff_mode: {support: none, description: There is nothing to compare.}
  idempotent: {support: none, description: Each time the data is replaced.}
"""

EXAMPLES = r"""
- name: Go back to the data of last night
  slipway_restore:
    name: shop-production
    confirm_data_loss: 20250101T031700Z-0002
    run: 20250101T120000
    by: alice
"""

RETURN = r"""
backup:
  description: The id of the backup.
  type: str
  returned: always
"""
