#!/usr/bin/python3
"""Packages of a host, installed by one update and one installation of apt's, with no service started."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whole_files import TEXT, before, diff, wanted, write

DOCUMENTATION = """
module: docker_packages
short_description: Install packages without starting their services
description:
  - Finishes what dpkg was cut off in, reads the package lists anew and installs what is missing, without what packages
    only recommend. What a host has stays as it is, unless O(newest).
  - No service is started meanwhile, so an engine is started once, with its configuration in place.
attributes:
  check_mode:
    support: full
    description: Goes by the package lists and sources as they are.
  diff_mode:
    support: full
    description: Of the files.
options:
  names:
    type: list
    elements: str
    required: true
    description: The packages.
  files:
    type: list
    elements: dict
    default: []
    description: What apt and the services shall go by, written before anything is installed.
    suboptions:
      path: {type: path, required: true, description: Where.}
      content: {type: str, required: true, description: The whole text.}
  newest:
    type: bool
    default: false
    description: Take the newest versions that the sources have.
  start:
    type: str
    default: ""
    description: A unit that systemd is told to start once they are installed. Nobody waits for it.
author: Slipway
"""

EXAMPLES = """
- name: Install the engine
  docker_packages:
    names: [docker.io, docker-cli]
"""

POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_KEPT = Path("/usr/sbin/policy-rc.d.slipway")
NO_STARTS = "#!/bin/sh\n# Written by Slipway, while it installs packages.\nexit 101\n"
QUIET = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", "APT_LISTCHANGES_FRONTEND": "none"}
UPDATE = (
    # An index that cannot be had is an error, and not one that the installation comes upon.
    *("--option", "APT::Update::Error-Mode=any"),
    # Descriptions in other words are for people; those that are there stay.
    *("--option", "Acquire::Languages=none", "--option", "APT::Get::List-Cleanup=false"),
)
INSTALL = (
    "--yes",
    "--no-install-recommends",
    # Whoever changed a file of a package keeps it.
    *("--option", "Dpkg::Options::=--force-confdef", "--option", "Dpkg::Options::=--force-confold"),
    # On its first day a host upgrades itself.
    *("--option", "DPkg::Lock::Timeout=60"),
)
UPDATES, PAUSE = 5, 2.0
"""How often the lists are tried, whose lock apt does not wait for, and seconds until the second try; then twice as
long each time."""
UNCHANGED = re.compile(r"^0 upgraded, 0 newly installed, 0 to remove", re.MULTILINE)


@contextlib.contextmanager
def no_starts() -> Iterator[None]:
    """Keep packages from starting services, whatever the host's own policy is; that of a run that was cut off goes."""
    if POLICY.exists() and POLICY.read_text() != NO_STARTS:
        POLICY.rename(POLICY_KEPT)
    POLICY.write_text(NO_STARTS)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        if POLICY_KEPT.exists():
            POLICY_KEPT.rename(POLICY)
        else:
            POLICY.unlink()


def update(module: AnsibleModule) -> None:
    """Read the package lists anew."""
    for attempt in range(UPDATES):
        last = attempt + 1 == UPDATES
        code, _, _ = module.run_command(["apt-get", "-qq", *UPDATE, "update"], environ_update=QUIET, check_rc=last)
        if not code:
            return
        time.sleep(PAUSE * 2**attempt)


def place(files: list[dict[str, str]], *, check: bool) -> list[dict[str, str]]:
    """Write what is not as it shall be, unless it is only to be said, and tell how it differed."""
    shall = [wanted({**file, "mode": "0644", "owner": "root", "group": "root"}) for file in files]
    differing = [(now, new) for new in shall if (now := before(Path(str(new["path"])))) != new]
    for _, new in [] if check else differing:
        write(new)
    return [diff(now, new) for now, new in differing]


def main() -> None:
    """Install."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "files": {"type": "list", "elements": "dict", "default": [], "options": TEXT},
            "newest": {"type": "bool", "default": False},
            "start": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    install = ["apt-get", "-q", *INSTALL, *([] if given["newest"] else ["--no-upgrade"]), "install", *given["names"]]
    written = place(given["files"], check=module.check_mode)
    if module.check_mode:
        _, out, _ = module.run_command([*install, "--simulate"], environ_update=QUIET, check_rc=True)
        module.exit_json(changed=bool(written) or not UNCHANGED.search(out), diff=written)
    with no_starts():
        _, finished, _ = module.run_command(["dpkg", "--configure", "-a"], environ_update=QUIET, check_rc=True)
        update(module)
        _, out, _ = module.run_command(install, environ_update=QUIET, check_rc=True)
    if given["start"]:
        module.run_command(["systemctl", "start", "--no-block", given["start"]])
    changed = bool(written) or bool(finished) or not UNCHANGED.search(out)
    module.exit_json(changed=changed, diff=written)


if __name__ == "__main__":
    main()
