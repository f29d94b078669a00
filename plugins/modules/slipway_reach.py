#!/usr/bin/python
"""Thin front to `slipway reach`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_reach
short_description: Look whether a host reaches its database and finds there what the application needs
description:
  - Logs in as both roles, as the application would, and looks at version, rights and extensions. Nothing is
    changed, and the host needs no client of PostgreSQL's.
author: Slipway
options:
  connection:
    description: C(host), C(port), C(name), C(user), C(password), C(owner), C(owner_password) and C(tls). Secret.
    type: dict
    required: true
  ca:
    description: PEM of the authorities that its certificate may be of. Empty are those that all trust.
    type: str
    default: ""
  version:
    description: The major version that the server has at least.
    type: int
    required: true
  extensions:
    description: Extensions that the database has to have.
    type: list
    elements: str
    default: []
  bundled:
    description: Whether the kit runs it. What to do about an error differs.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Nothing is ever changed.}
  diff_mode: {support: none, description: Nothing is ever changed.}
  idempotent: {support: full, description: Nothing is ever changed.}
"""

EXAMPLES = r"""
- name: Look whether the database can be used from here
  slipway_reach:
    connection: "{{ database_connection }}"
    version: 16
"""

RETURN = r"""
version:
  description: The server's version.
  type: str
  returned: always
"""
