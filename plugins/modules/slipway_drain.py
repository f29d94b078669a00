#!/usr/bin/python
"""Thin front to `slipway drain`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_drain
short_description: Take an app host out of the edge tier's balancing, or back
description:
  - Runs on a host of the edge tier. The app host gets no more requests; those that it has are waited for, as long as
    the contract's C(drain_seconds).
  - It is refused where no other app host answers, unless forced.
author: Slipway
options:
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  host:
    description: The app host, by its name in the inventory.
    type: str
    required: true
  drained:
    description: Whether it gets no requests.
    type: bool
    default: true
  force:
    description: Drain it even where nobody else would answer.
    type: bool
    default: false
  reason:
    description: For whoever finds it drained.
    type: str
    default: ""
  by:
    description: Who runs it.
    type: str
    required: true
attributes:
  check_mode: {support: full, description: Says whether something would change.}
  diff_mode: {support: none, description: It is drained or not.}
  idempotent: {support: full, description: "Of one that is drained already, only what is under way is waited for."}
"""

EXAMPLES = r"""
- name: Take a host out
  slipway_drain:
    name: shop-production
    host: app2
    by: alice
"""

RETURN = r"""
msg:
  description: How it stands now.
  type: str
  returned: always
left:
  description: Connections that were still open when the time was over.
  type: int
  returned: always
reason:
  description: Why it was drained, or had been until now.
  type: str
  returned: always
"""
