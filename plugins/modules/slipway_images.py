#!/usr/bin/python
"""Thin front to `slipway images`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slipway_images
short_description: Build images on a host from folders of the controller
description:
  - Ensures a base image (pulled, or bootstrapped from Debian packages) and the images built from it, and pushes
    those that are to be pushed.
  - An image whose inputs (files, Dockerfile, base, build arguments, version) are unchanged is neither built nor
    pushed again. The inputs are a label on the image, looked for in the engine and in the registry.
  - The controller packs the folders, so the host needs neither git nor a copy of them.
author: Slipway
options:
  state:
    description: C(absent) removes every image that the kit made on this host; nothing else is looked at then.
    type: str
    choices: [present, absent]
    default: present
  base_image:
    description: The base, to be pulled where the host lacks it. Empty bootstraps one from Debian packages.
    type: str
    default: ""
  base_suite:
    description: The Debian suite to bootstrap.
    type: str
    default: trixie
  base_max_age_days:
    description: A bootstrapped base of at most this age is used again.
    type: int
    default: 30
  base_recipe:
    description: Text of the Dockerfile that turns rootfs.tar into the base.
    type: str
    default: ""
  registries:
    description:
      - Registries that want a login, as the inventory's C(docker_registries) lists them. A login is handed to the
        Docker daemon with the question that needs it, and never written down.
    type: list
    elements: dict
    default: []
    suboptions:
      host: {description: The registry as image references write it., type: str, required: true}
      username: {description: Who reads from it and pushes to it., type: str, default: ""}
      password: {description: The password or token of that user., type: str, default: ""}
      ca: {description: Of no use here., type: str, default: ""}
  images:
    description: The images to ensure, in this order.
    type: list
    elements: dict
    default: []
    suboptions:
      repository:
        description: Name of the image; with the registry's address in front where it is pushed.
        type: str
        required: true
      context:
        description: Folder on the controller. Its .dockerignore is honoured.
        type: path
      version_file:
        description:
          - A pyproject.toml on the controller whose version the image carries. The image is then tagged
            C(<version>-build.<commits>) and C(sha-<commit>) of the last commit that touched I(context), and C(dev)
            alone where there is no such commit, the checkout is shallow, or a file in it is not committed.
          - Without it the image is tagged with what its build stage C(version) leaves in /version.
        type: path
      source:
        description: What I(context) holds. The controller's half of this module fills it in.
        type: dict
      dockerfile:
        description: The Dockerfile, relative to I(context).
        type: str
        default: Dockerfile
      build_args:
        description: Build arguments, on top of BASE, VERSION, REVISION, CREATED and SOURCE_DATE_EPOCH.
        type: dict
        default: {}
      secrets:
        description: Files of the host that the build may read at C(/run/secrets/<id>). They stay out of the image.
        type: list
        elements: dict
        default: []
        suboptions:
          id: {description: The name in the build., type: str, required: true}
          src: {description: The file on the host., type: path, required: true}
          optional: {description: Leave it out where the file is not there., type: bool, default: false}
      push:
        description: Push it to the registry that its name states.
        type: bool
        default: false
attributes:
  check_mode: {support: full, description: Says what would be built and pushed.}
  diff_mode: {support: none, description: An image has no readable difference.}
  idempotent: {support: full, description: Unchanged inputs build nothing.}
"""

EXAMPLES = r"""
- name: Build and push the backend
  slipway_images:
    base_recipe: "{{ lookup('ansible.builtin.file', 'images/base/Dockerfile') }}"
    images:
      - repository: 127.0.0.1:5000/slipway/backend
        context: "{{ playbook_dir }}/../app"
        version_file: "{{ playbook_dir }}/../app/pyproject.toml"
        push: true
"""

RETURN = r"""
msg:
  description: One sentence per image, the base first. Says whether the base was pulled or bootstrapped.
  type: str
  returned: always
missing:
  description: Debian packages that have to be installed before the base can be bootstrapped. Nothing was done then.
  type: list
  elements: str
  returned: always
base:
  description: The base. C(how) is pulled, bootstrapped or unchanged.
  type: dict
  returned: when it is there
  sample: {reference: "slipway/base:trixie-20250101", id: "sha256:...", how: unchanged, seconds: 0.0}
images:
  description: Each image. C(how) is built, pushed or unchanged; C(size) is in bytes.
  type: list
  elements: dict
  returned: always
  sample:
    - repository: 127.0.0.1:5000/slipway/backend
      tags: [0.1.0-build.12, sha-011a28d]
      reference: 127.0.0.1:5000/slipway/backend:0.1.0-build.12
      how: built
      digest: sha256:...
      id: sha256:...
      size: 90000000
      why: ""
      seconds: 21.5
"""
