#!/usr/bin/python
"""Thin front to `slipway front`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_front
short_description: Balance the names of an environment over its app hosts
description:
  - Runs on a host of the edge tier. Its edge gets a site with the names, certificates and limits of the contract, which
    sends requests to the app hosts that answer their health checks.
  - An app host that was drained stays so until M(slipway_drain) takes it back.
  - Without services that have names there is nothing to balance, as with I(state=absent).
author: Slipway
options:
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  front:
    description: What the filter C(slipway_front) makes of the contract.
    type: dict
  certificates:
    description: File that C(tls) names, to its content. Secret.
    type: dict
    default: {}
  hosts:
    description: App host to its private address, in the order in which they take turns.
    type: dict
  state:
    description: C(absent) takes the names off this host.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode: {support: full, description: Says what would be balanced.}
  diff_mode: {support: full, description: Of the edge's files for the environment.}
  idempotent: {support: full, description: An edge that balances as declared is not reloaded.}
"""

EXAMPLES = r"""
- name: Balance the shop
  slipway_front:
    name: shop-production
    front: "{{ told.front }}"
    certificates: "{{ told.certificates }}"
    hosts: {app1: 10.0.0.11, app2: 10.0.0.12}
  vars:
    told: "{{ app_services | slipway_front(slipway_name, release_fingerprint_key) }}"
"""

RETURN = r"""
msg:
  description: Over which hosts it is balanced.
  type: str
  returned: always
drained:
  description: Hosts that get no requests.
  type: list
  elements: str
  returned: always
"""
