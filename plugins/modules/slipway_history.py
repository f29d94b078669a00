#!/usr/bin/python
"""Thin front to `slipway recount`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_history
short_description: What happened to an environment on this host
description:
  - What `slipway history` shows, as data and as the same table. Changes nothing.
author: Slipway
options:
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  last:
    description: How many runs, 1 or more.
    type: int
    default: 20
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: There is nothing to compare.}
  idempotent: {support: full, description: It only looks.}
"""

EXAMPLES = r"""
- name: Look what happened
  slipway_history:
    name: shop-production
    last: 5
"""

RETURN = r"""
runs:
  description:
    - What each run did, the newest last. C(at), C(run), C(by), C(verb), C(release), C(result) and C(reason).
    - C(phases) and C(parts), which activating consisted of, map a name to seconds.
    - C(schema_before) and C(schema_after) are revisions; C(unavailable_ms) is null where it was not measured.
  type: list
  elements: dict
  returned: always
text:
  description: The same as a table for people.
  type: str
  returned: always
"""
