#!/usr/bin/python
"""Thin front to `slipway fetch`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_fetch
short_description: Begin to pull the images of a release that is to come
description:
  - Does not wait for their end, and says nothing of what goes wrong; staging does both.
author: Slipway
options:
  images:
    description: Service to C(repository), C(tag) and C(digest). Where the digest is empty the registry is asked for it.
    type: dict
    required: true
  registries:
    description:
      - Registries that want a login, as the inventory's C(docker_registries) lists them. A login is handed to the
        Docker daemon with the question that needs it, and never written down.
    type: list
    elements: dict
    default: []
    suboptions:
      host: {description: The registry as image references write it., type: str, required: true}
      username: {description: Who reads from it., type: str, default: ""}
      password: {description: The password or token of that user., type: str, default: ""}
      ca: {description: Of no use here., type: str, default: ""}
attributes:
  check_mode: {support: full, description: It pulls nothing then.}
  diff_mode: {support: none, description: There is nothing to compare.}
  idempotent: {support: full, description: What is there is not pulled again.}
"""

EXAMPLES = r"""
- name: Begin to bring the images
  slipway_fetch:
    images:
      api: {repository: registry.example/shop/api, tag: 1.4.2, digest: ""}
"""
