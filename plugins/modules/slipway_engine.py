#!/usr/bin/python
"""Thin front to `install-engine` of the role slipway."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_engine
short_description: Install the engine of this kit on a host
description:
  - Ships what was packed on the controller in one call, and makes it the engine in use once it is whole.
author: Slipway
options:
  packed:
    description: The file on the controller that C(pack-engine) has made.
    type: path
    required: true
  key:
    description: What the engine is known by.
    type: str
    required: true
  python:
    description: The interpreter on the host that its virtual environment is made from.
    type: path
    required: true
attributes:
  check_mode: {support: full, description: Says that it would.}
  diff_mode: {support: none, description: There is nothing to compare.}
  idempotent: {support: none, description: It is for a host that has another engine or none.}
"""

EXAMPLES = r"""
- name: Ship it
  slipway_engine:
    packed: .cache/engine/0f3a9c51d27b-3.13-x86_64.tar.gz
    key: 0f3a9c51d27b
    python: /usr/bin/python3
"""

RETURN = r"""
first:
  description: Whether nothing of this kit's was on the host before.
  type: bool
  returned: unless in check mode
"""
