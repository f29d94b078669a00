#!/usr/bin/python
"""Thin front to `slipway archive`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_archive
short_description: Have a host back up an environment to an archive off the host
description:
  - Writes down where the archive is and what opens it, for root alone to read; makes the archive where it is not there;
    and has systemd, or cron, start backups and drills at their times.
  - An archive that does not open, or cannot be reached, fails the task, and the host goes on with what it had.
author: Slipway
options:
  name:
    description: The environment's C(slipway_name).
    type: str
    required: true
  target:
    description: Where the archive is, and what opens it. Without it the host forgets it; what lies there stays.
    type: dict
    suboptions:
      url: {description: "A folder, C(sftp://user@host/folder), C(s3://host/bucket).", type: str, required: true}
      password: {description: Everything is encrypted with it., type: str, required: true}
      access_key: {description: For an S3 store., type: str, default: ""}
      secret_key: {description: For an S3 store., type: str, default: ""}
      region: {description: Of an S3 store., type: str, default: us-east-1}
      ssh_key: {description: A private key for an SFTP host., type: str, default: ""}
      known_hosts: {description: The host key of an SFTP host., type: str, default: ""}
      ca: {description: "The authority of an S3 store, in PEM.", type: str, default: ""}
  host:
    description: What the inventory calls this host.
    type: str
    required: true
  leads:
    description: Whether it is the host that backs up the database.
    type: bool
    default: true
  hosts:
    description: App hosts that the environment has.
    type: int
    default: 1
  keep:
    description: Span to how many backups of this host stay.
    type: dict
    default: {}
  times:
    description: Times of day at which it is backed up.
    type: list
    elements: str
    default: []
  drill_day:
    description: Day of the week of a drill; empty is each day.
    type: str
    choices: ["", mon, tue, wed, thu, fri, sat, sun]
    default: ""
  drill_time:
    description: When the newest backup is restored to scratch databases; empty is never.
    type: str
    default: ""
  max_age_hours:
    description: A backup older than that is told by C(slipway status); 0 never.
    type: float
    default: 25
  drill_max_age_days:
    description: A drill older than that is told by C(slipway status); 0 never.
    type: float
    default: 8
attributes:
  check_mode: {support: full, description: Says what would be written.}
  diff_mode: {support: none, description: Some of it is secret.}
  idempotent: {support: full, description: What is as declared is left alone.}
"""

EXAMPLES = r"""
- name: Back up to another host each night
  slipway_archive:
    name: shop-production
    target:
      url: sftp://keeper@10.20.0.31/srv/backups
      password: "{{ backup_password }}"
      ssh_key: "{{ backup_ssh_key }}"
      known_hosts: "{{ backup_known_hosts }}"
    host: "{{ inventory_hostname }}"
    times: ["03:17"]
"""

RETURN = r""" # """
