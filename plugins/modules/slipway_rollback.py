#!/usr/bin/python
"""Thin front to `slipway rollback`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_rollback
short_description: Have an older release serve again, with its own configuration
description:
  - Goes back to the release before or to a named one, by the same way as a deploy. It starts beside the one that
    serves, passes its gate, gets the traffic.
  - Says which secrets it brings back older values of. Where one of them was revoked, it makes a new release of the
    older one's image and configuration with today's secrets, and goes to that.
  - Refused where the schema is ahead of what it can run on, unless the contract's C(migrate.on_rollback) says how.
author: Slipway
options:
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  release:
    description: A release that served before; its first digits are enough. Empty is the one before.
    type: str
    default: ""
  confirm_data_loss:
    description: The release for which a backup may be restored; what was written since is lost.
    type: str
    default: ""
  soak_seconds:
    description: How long it is watched once it serves.
    type: float
    default: 0
  pool:
    description: The range that releases have their subnets from, should a new one be made.
    type: str
    default: 10.207.0.0/16
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
  check_mode: {support: full, description: Says which release would serve, and with which older secrets.}
  diff_mode: {support: none, description: A release is immutable.}
  idempotent: {support: none, description: Each time it goes one release further back, unless one is named.}
"""

EXAMPLES = r"""
- name: Go back
  slipway_rollback:
    name: shop-production
    run: 20250101T120000
    by: alice
"""

RETURN = r"""
release:
  description: The release that serves now.
  type: str
  returned: always
previous:
  description: The release that served before.
  type: str
  returned: always
older_secrets:
  description: Names of the secrets that have another value in the release that served before, or none.
  type: list
  returned: always
made_from:
  description: The release that a new one was made from, with today's secrets; empty where it was not needed.
  type: str
  returned: always
unavailable_ms:
  description: For how long clients of the edge were not served, at a resolution of 50 ms.
  type: int
  returned: when it changed something
"""
