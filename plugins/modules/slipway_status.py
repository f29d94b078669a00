#!/usr/bin/python
"""Thin front to `slipway report`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_status
short_description: How an environment stands on this host
description:
  - What `slipway status` shows, as data; what is not as the release declares it is part of that. Changes nothing.
author: Slipway
options:
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  schema:
    description:
      - Ask the database itself for its revision, inside the running container, and hold it against the one that the
        last migration left. It takes as long as the application needs to answer.
    type: bool
    default: false
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
  description:
    - C(name), C(environment), C(release), C(schema) and C(complaint), which is empty when it is healthy.
    - C(services), by container, with C(state), C(tag), C(image), C(url) and C(since).
    - C(differences), a list with C(where), C(field), C(declared) and C(found) for each thing that is not as declared.
    - C(lease), the run that holds it with C(run), C(by), C(what), C(fence) and C(seconds), or null.
    - C(maintenance) with C(since), C(by), C(reason) and C(retry_after), or null.
  type: dict
  returned: when the engine is there
"""
