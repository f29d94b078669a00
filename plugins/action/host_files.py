"""Runs the module of the same name, and of a change that could keep everybody out proves that it does not."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

Answer = dict[str, Any]

TRIES = 2
"""sshd takes its settings over in the background, so that a first try may meet it while it does."""
TIMEOUT = 5
"""Seconds that one login may take to connect."""
FRESH = "-o ControlMaster=no -o ControlPath=none"
"""Makes ssh log in anew instead of using the connection that is open. SSH goes by what it is told first."""


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible ships no types
    """Writes files, and proves that one can still log in."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, object] | None = None) -> Answer:
        super().run(tmp, task_vars)
        answer = self._module(task_vars)
        change = answer.get("change", "")
        if answer.get("failed") or not change:
            return answer
        user = str(self._task.args.get("prove_user") or self._get_remote_user() or "")
        if problem := self._login_problem(user):
            self._take_back(change, user, problem, task_vars)
        told = self._module(task_vars, state="confirmed", change=change)
        if told.get("failed") or not told.get("held"):
            raise AnsibleActionFail(
                f"Proving that {user} can log in took longer than {self._seconds} s, and the host has taken the change "
                "back. Run the play again, with a longer host_undo_seconds where the network is slow."
            )
        return answer

    @property
    def _seconds(self) -> int:
        return int(self._task.args.get("seconds", 60))

    def _module(self, task_vars: dict[str, object] | None, **more: str) -> Answer:
        answer: Answer = self._execute_module(module_args={**self._task.args, **more}, task_vars=task_vars)
        return answer

    def _take_back(self, change: str, user: str, problem: str, task_vars: dict[str, object] | None) -> None:
        try:
            back = not self._module(task_vars, state="undone", change=change).get("failed")
        except AnsibleConnectionFailure:
            back = False
        how = "It was taken back" if back else f"The host takes it back by itself within {self._seconds} s"
        raise AnsibleActionFail(
            f"With this change {user or 'nobody'} could not log in and become root any more. {how}. "
            f"{self._task.args.get('advice', '')}".strip(),
            result={"details": problem, "changed": False},
        )

    def _login_problem(self, user: str) -> str:
        """Log in anew and become root; says why that does not work, and nothing when it does."""
        connection, before = self._connection, {}
        options = {
            "ssh_args": f"{FRESH} {connection.get_option('ssh_args') or ''}".strip(),
            "remote_user": user or None,
            "timeout": TIMEOUT,
        }
        for name, value in options.items():
            before[name] = connection.get_option(name)
            connection.set_option(name, value)
        try:
            for attempt in range(TRIES):
                if not (problem := self._try_login(user)):
                    break
                time.sleep(1 if attempt + 1 < TRIES else 0)
        finally:
            for name, value in before.items():
                connection.set_option(name, value)
        return problem

    def _try_login(self, user: str) -> str:
        # Whoever logs in as root for now becomes root without sudo, which a user needs from now on.
        command = "id -u" if user == "root" or self._connection.become else "sudo -n id -u"
        try:
            done = self._low_level_execute_command(command)
        except AnsibleError as error:
            return str(error)
        said = str(done["stdout"]).strip()
        if said.splitlines()[-1:] == ["0"]:
            return ""
        return str(done["stderr"]).strip() or f"`{command}` answers {said!r}"
