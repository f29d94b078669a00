#!/usr/bin/python
"""Documents the action slipway_secrets, which runs on the controller alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_secrets
short_description: Generate, rotate, revoke and check the secrets of an environment
description:
  - Works on C(group_vars/all/vault.yml) of the inventory, on the controller. The file is read and written in memory and
    encrypted there; nothing of it is ever on disk in plain text, in an argument or in an answer.
  - What is there is never overwritten. What is missing is generated, of the kind that is declared.
author: Slipway
options:
  state:
    description:
      - C(present) generates what is missing, and rotates and revokes what is named.
      - C(checked) changes nothing. It fails where a secret is missing or not of its kind, has a value that was revoked,
        or is one of production and stands in another environment too.
    type: str
    choices: [present, checked]
    default: present
  declared:
    description: Secrets that the environment needs, by name; the kind, or C(kind), C(previous) and C(note).
    type: dict
    required: true
  kit:
    description: The same for those of the kit itself. The contract says what form they have to have.
    type: dict
    default: {}
  bundled:
    description: The same for those of the bundled backend; they count where C(app_services) names C(backend_services).
    type: dict
    default: {}
  rotate:
    description: Names of secrets to make a new value for.
    type: list
    elements: str
    default: []
  revoke:
    description: Names of secrets whose older values must never be used again.
    type: list
    elements: str
    default: []
  reason:
    description: Why they are revoked; noted in the vault.
    type: str
    default: ""
attributes:
  check_mode: {support: full, description: Says what would be generated, rotated and revoked.}
  diff_mode: {support: none, description: No value of a secret is shown.}
  idempotent: {support: full, description: What is there is left alone; a rotation makes a new value each time.}
"""

EXAMPLES = r"""
- name: Generate what is missing
  slipway_secrets:
    declared:
      shop_api_token: hex32
      shop_cookie_key: {kind: fernet, previous: shop_cookie_key_previous}
      smtp_password: {kind: given, note: The provider's console shows it.}

- name: Replace a key that leaked
  slipway_secrets:
    declared: {shop_api_token: hex32}
    rotate: [shop_api_token]
    revoke: [shop_api_token]
    reason: was in a ticket
"""

RETURN = r"""
generated:
  description: Names of the secrets that were missing and have a value now.
  type: list
  returned: when state is present
rotated:
  description: Names of those that have another value now.
  type: list
  returned: when state is present
revoked:
  description: Names of those whose older values were revoked.
  type: list
  returned: when state is present
compared:
  description: The other environments that could be opened, so that their secrets were compared.
  type: list
  returned: when state is checked
"""
