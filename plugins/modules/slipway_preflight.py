#!/usr/bin/python
"""Thin front to `slipway preflight`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_preflight
short_description: Check that a deploy could go through on this host, and pin its images
description:
  - Looks at the clock, the Docker daemon, the free disk space, the ports, networks and registries, and whether another
    inventory has an environment of this name here. Changes nothing.
author: Slipway
options:
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  images:
    description: Service to C(repository), C(tag) and C(digest). Where the digest is empty the registry is asked for it.
    type: dict
    required: true
  ports:
    description: Service to the loopback port that it publishes.
    type: dict
    default: {}
  networks:
    description: Docker networks that have to be there, because services join them.
    type: list
    elements: str
    default: []
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
  owner:
    description:
      - Which inventory this is. An environment of this name that another one has deployed is refused; without it, it is
        taken over.
    type: dict
    suboptions:
      environment: {description: The inventory's C(slipway_environment)., type: str, required: true}
      fingerprint: {description: What the filter C(slipway_owner) makes of its key., type: str, required: true}
  archive:
    description: Whether the inventory says that this host backs the environment up; then it has to know where to.
    type: bool
    default: false
  min_free_mb:
    description: Megabytes that have to be free where images and where releases are kept.
    type: int
    required: true
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: There is nothing to compare.}
  idempotent: {support: full, description: It only looks.}
"""

EXAMPLES = r"""
- name: Look at the host
  slipway_preflight:
    name: shop-production
    images:
      api: {repository: registry.example/shop/api, tag: 1.4.2, digest: ""}
    ports: {api: 4000}
    owner:
      environment: production
      fingerprint: "{{ release_fingerprint_key | slipway_owner('shop-production') }}"
    min_free_mb: 500
"""

RETURN = r"""
digests:
  description: Service to the digest of its image.
  type: dict
  returned: when the engine is there
current:
  description: The release that serves now.
  type: str
  returned: when one does
"""
