"""What an operator sees of a run: one line per thing done, failures as sentences, and at the end how it stands."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slipway
type: stdout
short_description: The display of Slipway's playbooks
description:
  - Shows each play, each task that changed something or has something to say, with its duration, and what is being
    done right now where there is a terminal. Tasks that found everything in place are left out.
  - Shows a failure as what is wrong, what to do next and the output that belongs to it.
  - Ends with how each environment stands, how long each phase took, and Ansible's usual recap line.
  - With C(-v) it is Ansible's default display, with the same ending.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from ansible.plugins.callback.default import CallbackModule as Default

ERASE = "\r\x1b[K"
SAID_BY = (
    "slipway_drain",
    "slipway_front",
    "slipway_images",
    "slipway_release",
    "slipway_revoke",
    "slipway_rollback",
    "slipway_secrets",
    "slipway_stack",
    "ansible.builtin.debug",
)
"""Actions whose `msg` is worth a line even where nothing changed."""

STANDING_FROM = ("slipway_status", "slipway_release")
"""Actions whose `status` is how an environment stands."""
WORTH_SAYING = 0.5
"""Seconds from which on a phase is named at the end."""


def _said(answer: Mapping[str, Any]) -> str:
    """What a task has to say; of one that was repeated, what each time had, once."""
    each = [one for one in answer.get("results") or [answer] if not one.get("skipped")]
    return " ".join(dict.fromkeys(str(one["msg"]) for one in each if one.get("msg")))


class CallbackModule(Default):  # type: ignore[misc]  # ansible ships no types
    """The display. Plain where the output is no terminal."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "slipway"

    def __init__(self) -> None:
        super().__init__()
        self._terminal = sys.stdout.isatty()
        self._phase = ""
        self._began = time.monotonic()
        self._phases: dict[str, float] = {}
        self._standing: dict[str, dict[str, Any]] = {}

    # --- while it runs ---------------------------------------------------------------------------------------------

    @property
    def _wordy(self) -> bool:
        return bool(self._display.verbosity)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """A headline."""
        if self._wordy:
            super().v2_playbook_on_play_start(play)
            return
        self._close_phase()
        self._show(f"\n{play.get_name().strip()}" + (" (check mode: nothing is changed)" if play.check_mode else ""))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """What is being done right now."""
        self._begin(task)
        if self._wordy:
            super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """The same for a handler."""
        self._begin(task)
        if self._wordy:
            super().v2_playbook_on_handler_task_start(task)

    def v2_runner_on_ok(self, result: Any) -> None:
        """A line for what changed, or for what has something to say."""
        answer = result.result
        if isinstance(answer.get("status"), Mapping) and result.task.action in STANDING_FROM:
            self._standing[result.host.get_name()] = dict(answer["status"])
        if self._wordy:
            super().v2_runner_on_ok(result)
            return
        self._handle_warnings(answer)
        said = _said(answer) if result.task.action in SAID_BY else ""
        if result.task.action == "ansible.builtin.debug" and result.task_fields["args"].get("verbosity", 0) > 0:
            said = ""
        if answer.get("changed") or said:
            self._line(result, "changed" if answer.get("changed") else "ok", said)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Nothing: what does not apply is not news."""
        if self._wordy:
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Nothing: the task's own line says it."""
        if self._wordy:
            super().v2_runner_item_on_ok(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        """Nothing."""
        if self._wordy:
            super().v2_runner_item_on_skipped(result)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Nothing: which file a task comes from is for the kit's developers."""
        if self._wordy:
            super().v2_playbook_on_include(included_file)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """What is wrong, what to do next, and the output that belongs to it."""
        if self._wordy:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        if ignore_errors:
            return
        answer = result.result
        self._line(result, "FAILED", "")
        self._paragraph(str(answer.get("msg") or "It failed and did not say why. Run it again with -v."))
        for key in ("details", "module_stderr", "stderr"):
            if answer.get(key):
                self._paragraph(str(answer[key]))
                break

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """The same for one item of a loop."""
        self.v2_runner_on_failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host that does not answer."""
        if self._wordy:
            super().v2_runner_on_unreachable(result)
            return
        self._line(result, "UNREACHABLE", "")
        self._paragraph(str(result.result.get("msg", "")))

    # --- at the end ------------------------------------------------------------------------------------------------

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """How each environment stands, where the time went, and the recap."""
        self._close_phase()
        for host, standing in self._standing.items():
            self._show(_standing(host, standing, self._phases))
        super().v2_playbook_on_stats(stats)

    # --- how -------------------------------------------------------------------------------------------------------

    def _begin(self, task: Any) -> None:
        self._close_phase()
        self._phase = _phase(task)
        if self._terminal and not self._wordy:
            sys.stdout.write(f"{ERASE}  … {_label(task)}")
            sys.stdout.flush()

    def _close_phase(self) -> None:
        now = time.monotonic()
        if self._phase:
            self._phases[self._phase] = self._phases.get(self._phase, 0.0) + now - self._began
        self._phase, self._began = "", now

    def _line(self, result: Any, verdict: str, said: str) -> None:
        took = f"{time.monotonic() - self._began:6.1f} s"
        host = result.host.get_name()
        color = {"changed": "yellow", "ok": "green"}.get(verdict, "red")
        self._show(f"  {verdict:<9}{took}  {host}  {_label(result.task)}", color)
        if "\n" in said:
            self._paragraph(said)
        elif said:
            self._show(f"{'':22}{said}")

    def _paragraph(self, text: str) -> None:
        self._show("\n" + "\n".join(f"    {line}" for line in text.strip().splitlines()))

    def _show(self, text: str, color: str | None = None) -> None:
        if self._terminal:
            sys.stdout.write(ERASE)
            sys.stdout.flush()
        self._display.display(text, color=color)


def _label(task: Any) -> str:
    """`docker: Install the packages` for a task of the role docker, whose name starts with its verb."""
    name = str(task.get_name(include_role_fqcn=False)).partition(" : ")[2] or str(task.get_name())
    verb, bar, rest = name.partition(" | ")
    return f"{_phase(task)}: {rest if bar else verb}"


def _phase(task: Any) -> str:
    """What the time of a task is counted as: the verb of a deploy, else the role."""
    role = str(task._role.get_name()) if task._role else "play"
    if role in ("backend", "release"):
        verb, bar, _ = str(task.name).partition(" | ")
        return verb if bar and verb not in ("contract", "check_secrets") else "check"
    return role


def _standing(host: str, status: Mapping[str, Any], phases: Mapping[str, float]) -> str:
    rows = [("release", f"{status['release']}   schema {status['schema'] or '-'}")]
    for name, service in status["services"].items():
        digest = service["image"].partition("@")[2][:19]
        rows.append((name, f"{service['url'] or 'answers nobody'}   {service['tag']}   {digest}"))
    rows += [("differs", _difference(one)) for one in status["differences"]]
    if closed := status["maintenance"]:
        rows.append(("closed", f"in maintenance since {closed['since'][:19]}, by {closed['by']}: {closed['reason']}"))
    if lease := status["lease"]:
        rows.append(("lease", f"{lease['by']} has it, run {lease['run']}, {lease['what']}"))
    took = " · ".join(f"{phase} {seconds:.1f} s" for phase, seconds in phases.items() if seconds >= WORTH_SAYING)
    rows.append(("took", took))
    sudo = "" if os.geteuid() == 0 else "sudo "
    rows += [
        ("next", f"{sudo}slipway status --name {status['name']}    how it stands"),
        ("", f"{sudo}slipway logs --name {status['name']} -f   what it prints"),
        ("", f"{sudo}slipway rollback --name {status['name']}  back to the release before"),
    ]
    width = max(len(label) for label, _ in rows)
    lines = "\n".join(f"  {label:<{width}}  {text}" for label, text in rows)
    return f"\n{status['name']} on {host} is {_verdict(status)}.\n{lines}"


def _verdict(status: Mapping[str, Any]) -> str:
    if status["complaint"]:
        return f"NOT HEALTHY: {status['complaint']}"
    return "healthy, but NOT AS DECLARED" if status["differences"] else "healthy"


def _difference(one: Mapping[str, str]) -> str:
    return f"{one['where']} {one['field']}: {one['found'] or '-'} instead of {one['declared'] or '-'}"
