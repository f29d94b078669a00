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
