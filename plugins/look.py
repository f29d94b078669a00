"""What the action plugins share that are the first to look at a host, and may find that they cannot."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from plugins.engine import become_refused

NOT_FOUND = 127
"""Exit code of a shell that does not find the interpreter."""


class LookAction(ActionBase):  # type: ignore[misc]  # ansible ships no types
    """Runs the module of the same name, and says plainly why it could not."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, object] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        with become_refused():
            answer: dict[str, Any] = self._execute_module(task_vars=task_vars)
        if answer.get("failed") and answer.get("rc") == NOT_FOUND:
            raise AnsibleActionFail(
                "There is no Python on this host, which Ansible needs. Install it there: apt-get install -y python3."
            )
        if answer.get("failed"):
            said = answer.get("module_stderr") or answer.get("module_stdout") or ""
            why = str(answer.get("msg") or "no answer").rstrip(".")
            raise AnsibleActionFail(
                f"The kit cannot look at this host as root: {why}. "
                "Connect as root, or as a user with sudo (without a password, or give it with --ask-become-pass).",
                result={"details": str(said)},
            )
        return answer
