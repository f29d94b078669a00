#!/usr/bin/python
"""Thin front to `slipway maintenance`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_maintenance
short_description: Take an environment out of service for its users, or back
description:
  - The edge answers 503 with a C(Retry-After) and a page; the health path of each service still reaches it.
author: Slipway
options:
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  maintenance:
    description: Whether users are kept out.
    type: bool
    required: true
  reason:
    description: What users read on the page.
    type: str
    default: ""
  retry_after:
    description: Seconds after which clients are told to come back.
    type: int
    default: 300
  run:
    description: Id of this run of the playbook, for the ledger.
    type: str
    required: true
  by:
    description: Who runs it, for the ledger.
    type: str
    required: true
attributes:
  check_mode: {support: full, description: Says whether something would change.}
  diff_mode: {support: none, description: It is on or off.}
  idempotent: {support: full, description: What is on already is left alone.}
"""

EXAMPLES = r"""
- name: Keep users out
  slipway_maintenance:
    name: shop-production
    maintenance: true
    reason: moving the database
    run: 20250101T120000
    by: alice
"""

RETURN = r""" # """
