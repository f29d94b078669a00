#!/usr/bin/python
"""Thin front to the verbs of a deploy: `slipway hold`, `stage`, `migrate`, `activate`, `return`, `verify`, `stop`, …"""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_release
short_description: Bring a release to a host, step by step
description:
  - C(held) takes the lease of the environment, or renews it, so that no other run changes it meanwhile. Where it is
    given a release that serves already, it takes none.
  - C(staged) writes the release folder, pulls the images by digest and makes the volumes; nothing that runs is touched.
  - C(migrated) brings the database schema to what the release needs, in the release's own image.
  - C(active) makes the release serve behind its health gate; a release that fails it is taken back.
  - C(returned) ends the run on a host because another one failed. Where another release served before, it serves again.
  - C(verified) checks that the release serves as declared, and fails where it does not.
  - C(stopped) stops what serves and keeps everything; C(absent) removes the environment with its data.
author: Slipway
options:
  state:
    description: What shall be true of the release.
    type: str
    required: true
    choices: [held, staged, migrated, active, returned, verified, stopped, absent]
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  id:
    description: Id of the release, for I(state=migrated), C(active), C(returned) and C(verified).
    type: str
  release:
    description:
      - The manifest and the list of files as the filter C(slipway_finish) gives them, for I(state=staged) and C(held).
    type: dict
  contents:
    description: File to its text, along with I(release). They may hold secrets, so they are never logged.
    type: dict
  fence:
    description: The number that I(state=held) or C(staged) gave this run; another run may have taken over since.
    type: int
  lease:
    description: Seconds that the run keeps the lease after this call.
    type: float
    default: 30
  wait:
    description: Seconds to wait for another run to end.
    type: float
    default: 0
  pool:
    description: The range that releases have their subnets from, for I(state=staged).
    type: str
    default: 10.207.0.0/16
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
  allow_unsafe:
    description: Apply steps that the release that serves may not survive, for I(state=staged) and C(migrated).
    type: bool
    default: false
  pending:
    description: What I(state=staged) has told in the same run, for I(state=migrated). Without it the image is asked.
    type: list
    elements: dict
  take_over:
    description: Replace what another inventory has deployed under this name, for I(state=staged).
    type: bool
    default: false
  migrate:
    description: Migrate with the old release stopped, for I(state=active), where I(state=migrated) said C(deferred).
    type: bool
    default: false
  migrates:
    description: Whether this host, of those that share a database, moves its schema; for I(state=staged).
    type: bool
    default: true
  migrates_on:
    description: The host that moves it, where that is not one of this run; for I(state=staged).
    type: str
    default: ""
  schema:
    description: The revision that another host has brought the database to that they share, for I(state=active).
    type: str
    default: ""
  previous:
    description: The release that served on this host before the run, for I(state=returned).
    type: str
    default: ""
  reason:
    description: Why, for the ledger; for I(state=returned).
    type: str
    default: ""
  soak:
    description: How the release is watched once it serves, for I(state=active).
    type: dict
    default: {}
    suboptions:
      seconds: {description: For how long., type: float, default: 0}
      max_error_percent: {description: Share of answers that may be server errors., type: float, default: 5}
  keep:
    description:
      - How many good releases stay on the host, for I(state=verified).
      - With I(state=active) it says that the run ends there, since no other host can fail. What I(state=verified) does
        is then done as well.
    type: int
  run:
    description: Id of this run of the playbook; the ledger groups its entries by it.
    type: str
    required: true
  by:
    description: Who runs it, for the ledger.
    type: str
    required: true
attributes:
  check_mode: {support: full, description: Says what would be pulled, migrated, started and stopped.}
  diff_mode: {support: full, description: Of the files against those of the release that serves, secrets masked.}
  idempotent: {support: full, description: A release that is already in the wanted state is left alone.}
"""

EXAMPLES = r"""
- name: Make the release serve
  slipway_release:
    state: active
    name: shop-production
    id: 0f3a9c51d27be480
    run: 20250101T120000
    by: alice
"""

RETURN = r"""
pulled:
  description: Images that were pulled.
  type: list
  returned: when I(state=staged)
serves:
  description: Whether the release serves as declared already; then there is nothing to migrate, activate or verify.
  type: bool
  returned: when I(state=staged)
current:
  description: The release that served before the run.
  type: str
  returned: when I(state=staged)
status:
  description: How it stands, as the module slipway_status says it.
  type: dict
  returned: when the run has ended, or when I(state=staged) and it serves already
fence:
  description: The fencing number of this run's lease.
  type: int
  returned: when I(state=held) or C(staged) and it has taken one
pending:
  description: What I(state=migrated) would apply, per service, with the verdict on it; then, the revisions applied.
  type: list
  returned: when I(state=staged) or C(migrated)
deferred:
  description: Whether I(state=active) has to migrate, with the old release stopped.
  type: bool
  returned: when I(state=migrated)
unavailable_ms:
  description: For how long clients of the edge were not served, at a resolution of 50 ms.
  type: int
  returned: when I(state=active)
removed:
  description: Releases that were forgotten.
  type: list
  returned: when the run has ended
schema:
  description: The revision that the database is at.
  type: str
  returned: when I(state=migrated), or when I(state=staged) and it is known
stop:
  description: Releases that were stopped.
  type: list
  returned: when I(state=active) or C(stopped)
previous:
  description: The release that served before.
  type: str
  returned: when I(state=active)
"""
