#!/usr/bin/python3
"""Files of a host that belong together, with whoever reads them; or all as it was."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whole_files import TEXT, before, diff, wanted, write

DOCUMENTATION = """
module: host_files
short_description: Write files of a host and have them taken over, or leave all as it was
description:
  - Writes files, has programs judge them where they lie, and has services take them over. When one of the two fails,
    the files are again what they were.
  - A file that its own judge refuses is not written, and neither are the others.
  - With O(guard) the change is one that could keep everybody out. The host is told first to take it back by itself
    after O(seconds), or when it is restarted; then the controller logs in anew as O(prove_user) and becomes root, and
    only that confirms the change. When it cannot, the change is taken back at once and the task fails.
  - On the controller an action plugin of this name does the proving.
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  files:
    type: list
    elements: dict
    default: []
    description: What is to be written.
    suboptions:
      path: {type: path, required: true, description: Where.}
      content: {type: str, required: true, description: The whole text.}
      mode: {type: str, default: "0644", description: Octal.}
      owner: {type: str, default: root, description: The owner.}
      group: {type: str, default: root, description: The group.}
      directory_mode: {type: str, default: "0755", description: Octal, of folders that have to be made for it.}
      validate:
        type: list
        elements: str
        default: []
        description: A command that judges the text before it is in its place. C(%s) stands for a file that holds it.
      otherwise: {type: str, default: "", description: The sentences that say what it means when that command fails.}
  validate:
    type: list
    elements: dict
    default: []
    description: Judges of the files, once they are in place.
    suboptions:
      command: {type: list, elements: str, required: true, description: Fails where they are wrong.}
      expect: {type: list, elements: str, default: [], description: Lines that it has to print, in any case.}
      otherwise: {type: str, default: "", description: The sentences that say what it means when it fails.}
  apply:
    type: list
    elements: list
    default: []
    description: Commands by which the files are taken over; run when one of them was changed, or O(stale).
  revert:
    type: list
    elements: list
    default: []
    description: Commands that take over what was there before.
  stale:
    type: bool
    default: false
    description: The files may be right, and what reads them does not go by them.
  guard:
    type: str
    default: ""
    description: The name, without a hyphen, of a change that could keep everybody out. Needs slipway-undo.
  seconds:
    type: int
    default: 60
    description: After how long the host takes such a change back by itself.
  prove_user:
    type: str
    default: ""
    description: Who has to be able to log in. Empty takes the user of the connection.
  advice:
    type: str
    default: ""
    description: The sentence that says what to do when nobody can log in.
  state:
    type: str
    choices: [written, confirmed, undone]
    default: written
    description: The second and third are for the action plugin.
  change:
    type: str
    default: ""
    description: What O(state=written) returned as C(change); for the action plugin.
author: Slipway
"""

EXAMPLES = """
- name: Limit the journal
  host_files:
    files:
      - path: /etc/systemd/journald.conf.d/slipway.conf
        content: |
          [Journal]
          SystemMaxUse=1G
    apply:
      - [systemctl, restart, systemd-journald]
"""

RETURN = """
change:
  type: str
  returned: always
  description: The name of the change that waits to be confirmed; empty when none does.
held:
  type: bool
  returned: when the state is confirmed
  description: Whether the change was still there to be confirmed.
"""

CHANGES = Path("/var/lib/slipway/undo")
UNDO = "/usr/local/sbin/slipway-undo"
SYSTEMD = Path("/run/systemd/system")


class RefusedError(Exception):
    """A judge or a service did not take the files."""


class Change:
    """The change that one call asks for."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._given = module.params
        self._new = [wanted(file) for file in self._given["files"]]
        self._old = [before(Path(str(file["path"]))) for file in self._new]

    def make(self) -> dict[str, object]:
        """Make it, or take it back whole. Raises RefusedError."""
        given = self._given
        differing = [(old, new) for old, new in zip(self._old, self._new, strict=True) if old != new]
        changed = bool(differing) or given["stale"]
        answer = {"changed": changed, "change": "", "diff": [diff(old, new) for old, new in differing]}
        if not changed or self._module.check_mode:
            return answer
        for file, new in zip(given["files"], self._new, strict=True):
            if file["validate"] and any(new is one for _, one in differing):
                self._try(file)
        name = self._arm() if given["guard"] else ""
        try:
            for file, new in zip(given["files"], self._new, strict=True):
                if any(new is one for _, one in differing):
                    write(new, int(file["directory_mode"], 8))
            for judge in given["validate"]:
                self._ask(judge)
            for command in given["apply"]:
                self._run(command)
        except RefusedError:
            self._restore(name)
            raise
        return {**answer, "change": name}

    def _try(self, file: dict[str, object]) -> None:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as text:
            text.write(str(file["content"]))
            text.flush()
            command = [word.replace("%s", text.name) for word in file["validate"]]
            self._ask({"command": command, "expect": [], "otherwise": file["otherwise"]})

    def _ask(self, judge: dict[str, object]) -> None:
        try:
            out = self._run(judge["command"])
        except RefusedError as refused:
            raise RefusedError(f"{judge['otherwise']} {refused}".strip()) from refused
        lines = {line.strip().lower() for line in out.splitlines()}
        missing = [line for line in judge["expect"] if line.lower() not in lines]
        if missing:
            raise RefusedError(f"{judge['otherwise']} Missing: {'; '.join(missing)}.".strip())

    def _run(self, command: list[str]) -> str:
        code, out, err = self._module.run_command(command, environ_update={"LC_ALL": "C"})
        if code:
            raise RefusedError(f"{' '.join(command)}: {(err or out).strip()}")
        return str(out)

    def _arm(self) -> str:
        """Tell the host to take back by itself what is about to be changed."""
        given = self._given
        name = f"{given['guard']}-{secrets.token_hex(4)}"
        record = {"name": given["guard"], "files": self._old, "commands": given["revert"]}
        CHANGES.mkdir(mode=0o700, parents=True, exist_ok=True)
        preparing = Path(tempfile.mkdtemp(dir=CHANGES.parent))
        file = preparing / "record.json"
        file.write_text(json.dumps(record))
        with file.open() as written:
            os.fsync(written.fileno())
        preparing.rename(CHANGES / name)
        if SYSTEMD.is_dir():
            timer = ["systemd-run", "--quiet", f"--unit=slipway-undo-{name}", f"--on-active={given['seconds']}"]
            try:
                self._run([*timer, "--timer-property=AccuracySec=100ms", UNDO, name])
            except RefusedError:
                forget(name)
                raise
        else:
            subprocess.Popen(
                [UNDO, name, "--after", str(given["seconds"])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return name

    def _restore(self, name: str) -> None:
        for file in self._old:
            write(file)
        for command in self._given["revert"]:
            with contextlib.suppress(RefusedError):
                self._run(command)
        if name:
            forget(name)
            disarm(self._module, name)


def take_back_unconfirmed(module: AnsibleModule, guard: str) -> None:
    """Take back what a run left behind that was cut off, before its state is taken for what there was."""
    for change in sorted(CHANGES.glob(f"{guard}-*")):
        module.run_command([UNDO, change.name])
        disarm(module, change.name)


def forget(name: str) -> bool:
    """Confirm a change. Returns whether the host has not taken it back before."""
    confirmed = CHANGES.parent / f"confirmed-{name}"
    try:
        (CHANGES / name).rename(confirmed)
    except FileNotFoundError:
        return False
    shutil.rmtree(confirmed)
    return True


def disarm(module: AnsibleModule, name: str) -> None:
    """End the timer of a change that is decided."""
    if SYSTEMD.is_dir():
        module.run_command(["systemctl", "stop", f"slipway-undo-{name}.timer"])


def main() -> None:
    """Make, confirm or undo a change."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    **TEXT,
                    "mode": {"type": "str", "default": "0644"},
                    "owner": {"type": "str", "default": "root"},
                    "group": {"type": "str", "default": "root"},
                    "directory_mode": {"type": "str", "default": "0755"},
                    "validate": {"type": "list", "elements": "str", "default": []},
                    "otherwise": {"type": "str", "default": ""},
                },
            },
            "validate": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "command": {"type": "list", "elements": "str", "required": True},
                    "expect": {"type": "list", "elements": "str", "default": []},
                    "otherwise": {"type": "str", "default": ""},
                },
            },
            "apply": {"type": "list", "elements": "list", "default": []},
            "revert": {"type": "list", "elements": "list", "default": []},
            "stale": {"type": "bool", "default": False},
            "guard": {"type": "str", "default": ""},
            "seconds": {"type": "int", "default": 60},
            "prove_user": {"type": "str", "default": ""},
            "advice": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["written", "confirmed", "undone"], "default": "written"},
            "change": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    if given["state"] == "confirmed":
        held = forget(given["change"])
        disarm(module, given["change"])
        module.exit_json(changed=held, change="", held=held)
    if given["state"] == "undone":
        code, _, err = module.run_command([UNDO, given["change"]])
        disarm(module, given["change"])
        if code:
            module.fail_json(msg=f"The change could not be taken back: {err.strip()}.")
        module.exit_json(changed=True, change="")
    if given["guard"] and not module.check_mode:
        take_back_unconfirmed(module, given["guard"])
    try:
        module.exit_json(**Change(module).make())
    except RefusedError as refused:
        module.fail_json(msg=f"{str(refused).rstrip('.')}. Nothing was changed.")


if __name__ == "__main__":
    main()
