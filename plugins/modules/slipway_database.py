#!/usr/bin/python
"""Thin front to `slipway database`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_database
short_description: Keep the bundled PostgreSQL of an environment as declared
description:
  - Runs PostgreSQL as the stack C(<name>-database) in C(/srv/slipway/<name>-database), with settings for the memory
    that it has, a certificate by an authority of its own, and rules that let nobody in but I(clients), over TLS.
  - Brings roles, rights, extensions and the database itself to what is declared.
  - A changed setting, rule, certificate, password or right replaces no container.
author: Slipway
options:
  name:
    description: The environment.
    type: str
    required: true
  compose:
    description: The Compose file, which names what the engine notes of the host in C(.env).
    type: str
    default: ""
  image:
    description: The image that the Compose file names.
    type: str
    default: ""
  version:
    description: The major version that is declared. Data of another one is refused.
    type: int
    default: 0
  database:
    description: The database itself.
    type: dict
    suboptions:
      name: {description: What it is called., type: str, required: true}
      owner: {description: The role that has it and migrates it., type: str, required: true}
      user: {description: The role that reads and writes rows., type: str, required: true}
      extensions: {description: Extensions to make in it., type: list, elements: str, default: []}
      init_sql: {description: SQL that the owner runs once., type: str, default: ""}
      inspector: {description: Whether a role for people may read everything., type: bool, default: false}
  passwords:
    description: Those of C(superuser), C(owner), C(user) and C(replication), and of C(inspector) where there is one.
    type: dict
    default: {}
  address:
    description: The address of the host that it listens on.
    type: str
    default: ""
  port:
    description: The port there.
    type: int
    default: 5432
  names:
    description: Names that its certificate is good for, beside the address.
    type: list
    elements: str
    default: []
  clients:
    description: Addresses and networks that may connect.
    type: list
    elements: str
    default: []
  replicas:
    description: Addresses and networks that may replicate.
    type: list
    elements: str
    default: []
  memory:
    description: What it may use, a size or a share of the host's.
    type: str
    default: 50%
  connections:
    description: How many there may be at a time.
    type: int
    default: 100
  settings:
    description: Settings of PostgreSQL's own, over those that are worked out.
    type: dict
    default: {}
  archive:
    description:
      - Where its log and its backups go (C(url), C(password), what else opens that target); nowhere without a C(url).
        A segment of the log is seen to arrive there before this is done.
    type: dict
    default: {}
  archive_terms:
    description:
      - C(keep) full backups stay, after C(full_days) days one is full again, and C(queue) is what may wait on the host
        while the target is gone.
    type: dict
    default: {}
  backup_times:
    description: When the host takes a backup by itself, C(HH:MM).
    type: list
    elements: str
    default: []
  to:
    description: The moment to go back to, in ISO 8601, UTC where it names no zone; or C(latest).
    type: str
  wait:
    description: Seconds for it to be healthy.
    type: float
    default: 120
  registries:
    description: Registries that want a login, as the inventory's C(docker_registries) lists them.
    type: list
    elements: dict
    default: []
    suboptions:
      host: {description: The registry as image references write it., type: str, required: true}
      username: {description: Who reads from it., type: str, default: ""}
      password: {description: The password or token of that user., type: str, default: ""}
      ca: {description: Of no use here., type: str, default: ""}
  state:
    description:
      - C(upgraded) moves the data to another major version first, by dump and restore, and keeps the old volume.
        C(stopped) keeps everything but the processes, C(absent) keeps the data unless I(purge).
      - C(backed_up) takes a backup into the archive, full where that is due. C(restored) goes back to the moment I(to),
        closes all connections for that, and keeps the volume with the data from before.
    type: str
    choices: [present, upgraded, stopped, absent, backed_up, restored]
    default: present
  purge:
    description: Let C(absent) remove the data too. This is where it ends.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Says what would be written and done.}
  diff_mode: {support: full, description: Of the files without secrets.}
  idempotent: {support: full, description: A database that is as declared is not touched.}
"""

EXAMPLES = r"""
- name: Stop the database
  slipway_database:
    name: shop-production
    state: stopped
"""

RETURN = r"""
msg:
  description: What was done and why.
  type: str
  returned: always
authority:
  description: The certificate, in PEM, of the authority that the server's is of.
  type: str
  returned: when I(state=present) or I(state=upgraded)
kept:
  description: The volume with the data as it was before; empty where nothing was moved.
  type: str
  returned: when I(state=upgraded) or I(state=restored)
label:
  description: What the backup is called; empty in check mode.
  type: str
  returned: when I(state=backed_up)
containers:
  description: The containers as they are now (name, service, state, health, image id).
  type: list
  elements: dict
  returned: when I(state=present), I(state=upgraded), I(state=stopped) or I(state=absent)
"""
