#!/usr/bin/python3
"""What a host is like before the role host does anything, in one look that changes nothing."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.os_release import read_os_release

DOCUMENTATION = """
module: host_info
short_description: Tell what a host is like
description:
  - Reads in one call all that the role host compares with what the inventory wants.
attributes:
  check_mode:
    support: full
    description: It only reads.
options:
  files:
    type: list
    elements: path
    default: []
    description: Text files to read.
  packages:
    type: list
    elements: str
    default: []
    description: Debian packages to ask for.
  units:
    type: list
    elements: str
    default: []
    description: Units of systemd to ask for.
  sysctl:
    type: list
    elements: str
    default: []
    description: Settings of the kernel to read.
  user:
    type: str
    default: ""
    description: The user to ask for, and as whom to ask sshd for its settings. Empty for who logs in as root.
author: Slipway
"""

EXAMPLES = """
- name: Look at the host
  host_info:
    units: [systemd-timesyncd]
  register: __host
"""

RETURN = """
distribution:
  type: str
  returned: always
  description: ID of os-release, for example V(debian).
version:
  type: str
  returned: always
  description: VERSION_ID of os-release, for example V(13).
name:
  type: str
  returned: always
  description: PRETTY_NAME of os-release.
systemd:
  type: bool
  returned: always
  description: Whether systemd is the init system that runs.
container:
  type: str
  returned: always
  description: Which kind of container this is, for example V(docker); empty on a machine with a kernel of its own.
hostname:
  type: str
  returned: always
  description: The name of the host, as its kernel knows it.
files:
  type: dict
  returned: always
  description: Path to C(content), C(mode), C(owner), C(group) and C(mtime); a file that is not there is left out.
packages:
  type: list
  elements: str
  returned: always
  description: Those that are installed.
units:
  type: dict
  returned: always
  description: Unit to C(active), C(enabled), and C(since) in seconds of the epoch.
sysctl:
  type: dict
  returned: always
  description: Setting to value; one that this kernel does not have is left out.
swaps:
  type: dict
  returned: always
  description: Path to bytes of what the host swaps to.
user:
  type: dict
  returned: always
  description: C(home), empty where there is none; C(shell), C(group), C(groups); C(keys_file) and its C(keys).
sshd:
  type: dict
  returned: always
  description: C(installed); C(effective), the lines of its settings for the user.
firewall_loaded:
  type: bool
  returned: always
  description: Whether the kernel has the table of the kit as the kit has loaded it.
unconfirmed:
  type: list
  elements: str
  returned: always
  description: Changes that an earlier run has made and not confirmed.
over_ssh:
  type: bool
  returned: always
  description: Whether the controller has logged in by SSH.
login:
  type: str
  returned: always
  description: As whom it has, where it was told.
"""

CHANGES = Path("/var/lib/slipway/undo")
LOADED = Path("/run/slipway-firewall/loaded")
SBIN = ["/usr/sbin", "/sbin"]


class Look:
    """Asks the programs of the host, in words that no language setting changes."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module

    def ask(self, program: str, *arguments: str) -> str:
        """What a program answers; empty when it is not there or has none."""
        path = self._module.get_bin_path(program, opt_dirs=SBIN)
        if path is None:
            return ""
        code, out, _ = self._module.run_command([path, *arguments], environ_update={"LC_ALL": "C"})
        return out if code == 0 else ""

    def there(self, program: str) -> bool:
        """Whether there is such a program."""
        return self._module.get_bin_path(program, opt_dirs=SBIN) is not None

    def container(self) -> str:
        """The kind of container that this is."""
        if self.there("systemd-detect-virt"):
            return self.ask("systemd-detect-virt", "--container").strip()
        return "docker" if Path("/.dockerenv").exists() else ""

    def packages(self, names: list[str]) -> list[str]:
        """Which of them are installed."""
        listing = self.ask("dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}\t${Package}\n")
        installed = {
            name for state, _, name in (line.partition("\t") for line in listing.splitlines()) if state[1] == "i"
        }
        return [name for name in names if name in installed]

    def units(self, names: list[str]) -> dict[str, dict[str, object]]:
        """How they stand."""
        if not names or not Path("/run/systemd/system").is_dir():
            return {}
        wanted = "Id,ActiveState,UnitFileState,ActiveEnterTimestamp"
        shown = self.ask("systemctl", "show", "--timestamp=unix", f"--property={wanted}", *names)
        found = {}
        for name, block in zip(names, shown.split("\n\n"), strict=False):
            told = dict(line.split("=", 1) for line in block.strip().splitlines())
            since = told.get("ActiveEnterTimestamp", "").lstrip("@")
            found[name] = {
                "active": told.get("ActiveState") == "active",
                "enabled": told.get("UnitFileState") in ("enabled", "static", "alias"),
                "since": int(since) if since.isdecimal() else 0,
            }
        return found

    def sshd(self, user: str) -> dict[str, object]:
        """What sshd would do with this user; a client on this host stands for all of them."""
        answer = self.ask("sshd", "-T", "-C", f"user={user},host=localhost,addr=127.0.0.1")
        return {"installed": self.there("sshd"), "effective": answer.splitlines()}

    def firewall_loaded(self) -> bool:
        """Whether nobody has changed or removed the kit's table since it was loaded."""
        listing = self.ask("nft", "--stateless", "list", "table", "inet", "slipway")
        return bool(listing) and LOADED.exists() and LOADED.read_text() == listing


def read_files(paths: list[str]) -> dict[str, dict[str, object]]:
    """What is written where, and whose it is."""
    found = {}
    for path in paths:
        file = Path(path)
        if file.is_file():
            state = file.stat()
            found[path] = {
                "content": file.read_text(encoding="utf-8", errors="replace"),
                "mode": f"{stat.S_IMODE(state.st_mode):04o}",
                "owner": owner(state.st_uid),
                "group": group(state.st_gid),
                "mtime": int(state.st_mtime),
            }
    return found


def owner(uid: int) -> str:
    """The name behind a number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group(gid: int) -> str:
    """The name behind a number."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def read_sysctl(names: list[str]) -> dict[str, str]:
    """The kernel's values."""
    found = {}
    for name in names:
        file = Path("/proc/sys", *name.split("."))
        try:
            found[name] = " ".join(file.read_text().split())
        except OSError:
            continue
    return found


def read_swaps(file: Path) -> dict[str, int]:
    """What the kernel swaps to, in bytes."""
    try:
        lines = file.read_text().splitlines()[1:]
    except OSError:
        return {}
    return {words[0]: int(words[2]) * 1024 for words in (line.split() for line in lines)}


def read_user(name: str, sshd: list[str]) -> dict[str, object]:
    """A user, and the first file in which sshd looks for its keys; of one that is not there, where they will be."""
    try:
        known = pwd.getpwnam(name)
        home, shell, main_group = known.pw_dir, known.pw_shell, group(known.pw_gid)
        groups = sorted(entry.gr_name for entry in grp.getgrall() if name in entry.gr_mem)
    except KeyError:
        home, shell, main_group, groups = "", "", "", []
    where = next((line.split()[1] for line in sshd if line.lower().startswith("authorizedkeysfile ")), "")
    predicted = home or ("/root" if name == "root" else f"/home/{name}")
    path = (where or ".ssh/authorized_keys").replace("%u", name).replace("%h", predicted).replace("%%", "%")
    keys_file = Path(path if path.startswith("/") else f"{predicted}/{path}")
    keys = keys_file.read_text(encoding="utf-8", errors="replace") if keys_file.is_file() else ""
    return {
        "home": home,
        "shell": shell,
        "group": main_group,
        "groups": groups,
        "keys_file": str(keys_file),
        "keys": keys,
    }


def main() -> None:
    """Gather and answer."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "path", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "sysctl": {"type": "list", "elements": "str", "default": []},
            "user": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given, look = module.params, Look(module)
    release = read_os_release(Path("/etc/os-release"))
    user = given["user"] or "root"
    sshd = look.sshd(user)
    module.exit_json(
        changed=False,
        distribution=release.get("ID", ""),
        version=release.get("VERSION_ID", ""),
        name=release.get("PRETTY_NAME", "an unknown system"),
        systemd=Path("/run/systemd/system").is_dir(),
        container=look.container(),
        hostname=os.uname().nodename,
        files=read_files(given["files"]),
        packages=look.packages(given["packages"]),
        units=look.units(given["units"]),
        sysctl=read_sysctl(given["sysctl"]),
        swaps=read_swaps(Path("/proc/swaps")),
        user=read_user(user, sshd["effective"]),
        sshd=sshd,
        firewall_loaded=look.firewall_loaded(),
        unconfirmed=sorted({path.name.lstrip(".").partition("-")[0] for path in CHANGES.glob("*")}),
    )


if __name__ == "__main__":
    main()
