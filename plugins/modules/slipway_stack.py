#!/usr/bin/python
"""Thin front to `slipway stack`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_stack
short_description: Keep a stack of the kit's own as declared
description:
  - Lays a folder of plain Compose down on the host and keeps its containers running, healthy and as declared.
  - Compose reads the files before they replace anything. Containers are replaced where their settings, their
    image or a mounted file differ, and left alone otherwise.
author: Slipway
options:
  name:
    description: Name of the stack. The folder is C(/srv/slipway/<name>), the Compose project C(slipway-<name>).
    type: str
    required: true
  files:
    description: The files of the folder. One of them is compose.yml.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Relative to the folder., type: str, required: true}
      content: {description: The whole text., type: str, required: true}
      mode: {description: Octal., type: str, default: "0644"}
      uid: {description: Owner., type: int, default: 0}
      gid: {description: Group., type: int, default: 0}
  reload:
    description:
      - The files that are the main file of a Caddy, which takes a change of it over by its admin socket. The change is
        refused whole or taken over whole, and no container is replaced for it.
    type: list
    elements: dict
    default: []
    suboptions:
      file: {description: The main file's path., type: str, required: true}
      socket: {description: The admin socket's path relative to the folder., type: str, required: true}
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
  state:
    description: C(stopped) keeps everything but the processes, C(absent) keeps the volumes unless I(purge).
    type: str
    choices: [present, stopped, absent]
    default: present
  purge:
    description: Let C(absent) remove the volumes too. This is where data ends.
    type: bool
    default: false
  begin:
    description: >-
      Whether to go on while containers that had to be started are still starting. The next release that is staged on
      this host waits for those of the edge, and fails where they do not come up.
    type: bool
    default: false
  wait:
    description: Seconds for all containers to be running and healthy.
    type: float
    default: 60
attributes:
  check_mode: {support: full, description: Says what would be written and why containers would be replaced.}
  diff_mode: {support: full, description: Of the files.}
  idempotent: {support: full, description: A stack that is as declared is not touched.}
"""

EXAMPLES = r"""
- name: Run the registry
  slipway_stack:
    name: registry
    files:
      - path: compose.yml
        content: "{{ lookup('ansible.builtin.template', 'compose.yml.j2') }}"
"""

RETURN = r"""
msg:
  description: One sentence on what was done and why.
  type: str
  returned: always
reasons:
  description: Why containers were started or replaced.
  type: list
  elements: str
  returned: always
containers:
  description: The containers as they are now (name, service, state, health, image id).
  type: list
  elements: dict
  returned: always
"""
