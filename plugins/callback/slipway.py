"""What an operator sees of a run: one line per thing done, failures as sentences, and at the end how it stands."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slipway
type: stdout
short_description: The display of Slipway's playbooks
description:
  - Shows each play and each task that changed something or has something to say, with its duration. Tasks that found
    everything in place are left out.
  - On a terminal it shows a row for each host below that, with what each phase took and what is being done right now.
    With several hosts the row stands for what changed.
  - Shows a failure as what is wrong, what to do next and the output that belongs to it.
  - Ends with how each environment stands, how long each phase took, and Ansible's usual recap line.
  - With C(-v) it is Ansible's default display, with the same ending.
  - With C(-e status_json=true) or C(-e history_json=true) the document is all that is on stdout; the rest is on stderr.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

import contextlib
import gc
import os
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.plugins.loader import filter_loader
from ansible.utils.color import stringc

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins import views
from plugins.board import Board, Screen, State

TICK = 0.2
"""Seconds between two pictures, so that many short tasks do not flicker."""
DEBUG = "ansible.builtin.debug"
DOCUMENTS = ("status_json", "history_json")
"""Extra variables that ask for a document on stdout."""
FOLDED = {
    "contract": "check",
    "check_secrets": "check",
    "identify": "check",
    "take": "check",
    "render": "stage",
    "hold": "stage",
    "wait": "activate",
    "leave": "verify",
    "say": "verify",
}
"""Steps of a deploy that take no time to speak of, and the phase that they are counted as."""
INCLUDES = ("ansible.builtin.include_tasks", "ansible.builtin.include_role")
FAIL = "ansible.builtin.fail"
LOOKS = ("slipway_history", "slipway_status")
"""Actions that ask how things are: that a host does not answer is part of what they find, and a later task says so."""
SAID_BY = (
    "slipway_database",
    "slipway_drain",
    "slipway_engine",
    "slipway_front",
    "slipway_archive",
    "slipway_backup",
    "slipway_images",
    "slipway_release",
    "slipway_restore",
    "slipway_revoke",
    "slipway_rollback",
    "slipway_secrets",
    "slipway_stack",
    DEBUG,
)
"""Actions whose `msg` is worth a line even where nothing changed."""

STANDING_FROM = ("slipway_status", "slipway_release")
"""Actions whose `status` is how an environment stands."""
UNREACHABLE = (
    "Nobody can log in to this host. See that it is up and that ssh gets in, or leave it out with --limit, "
    "and run the play again."
)
WORTH_SAYING = 0.5
"""Seconds from which on a phase is named at the end."""


class CallbackModule(Default):  # type: ignore[misc]  # ansible ships no types
    """The display. Plain where the output is no terminal."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "slipway"

    def __init__(self) -> None:
        super().__init__()
        self._phase = ""
        self._began = time.monotonic()
        self._phases: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self._standing: dict[str, dict[str, Any]] = {}
        self._looked = False
        self._board = Board()
        self._printer = Printer(self._display, self._board)
        # Each task on each host is a fork of this process. What it would load again, it finds loaded (naming one of the
        # kit's filters loads them all), and what is here by now it need not look through for garbage.
        filter_loader.get("slipway_problems")
        gc.freeze()

    # --- while it runs ---------------------------------------------------------------------------------------------

    @property
    def _wordy(self) -> bool:
        return bool(self._display.verbosity)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """A headline, and a row for each host."""
        variables = play.get_variable_manager()
        self._printer.start(
            live=not self._wordy,
            document=any(boolean(variables.extra_vars.get(name, False), strict=False) for name in DOCUMENTS),
        )
        hosts = variables.get_vars(play=play, include_hostvars=False)["ansible_play_hosts_all"]
        with self._printer.lock:
            self._board.expect([str(host) for host in hosts])
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

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """The same on one host."""
        now = self._since[host.get_name()] = time.monotonic()
        if _on_board(task):
            with self._printer.lock:
                self._board.begin(host.get_name(), _phase(task), _label(task), now)
        super().v2_runner_on_start(host, task)

    def v2_runner_on_ok(self, result: Any) -> None:
        """A line for what changed, or for what has something to say."""
        answer = result.result
        if isinstance(answer.get("status"), Mapping) and result.task.action in STANDING_FROM:
            self._standing[result.host.get_name()] = dict(answer["status"])
            self._looked = self._looked or result.task.action == "slipway_status"
        if _failed_as_data(result) and not self._wordy:
            self._failed(result)
            return
        self._end(result, "changed" if answer.get("changed") else "ok")
        said = _said(result)
        if self._printer.document and said and result.task.action == DEBUG:
            self._printer.write_document(said)
            return
        if self._wordy:
            super().v2_runner_on_ok(result)
            return
        self._handle_warnings(answer)
        if "\n" in said and not answer.get("changed"):
            self._show("\n" + said.strip("\n"))
        elif said or (answer.get("changed") and self._tells_each):
            self._line(result, "changed" if answer.get("changed") else "ok", said)

    @property
    def _tells_each(self) -> bool:
        """Whether there is a line for each thing that changed: where rows stand for many hosts, they tell it."""
        return not self._printer.live or len(self._board.rows) == 1

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Nothing: what does not apply is not news."""
        self._end(result, "")
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
        if ignore_errors and not _of_engine(result.task):
            self._end(result, "ok")
        elif not self._wordy:
            self._failed(result)
        if self._wordy:
            super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """The same for one item of a loop."""
        if self._wordy:
            super().v2_runner_item_on_failed(result)
            return
        self._failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host that does not answer."""
        self._end(result, "unreachable")
        if self._wordy:
            super().v2_runner_on_unreachable(result)
            return
        if result.task.ignore_unreachable and result.task.action in LOOKS:
            return
        with self._printer.together():
            self._line(result, "UNREACHABLE", "")
            self._paragraph(str(result.result.get("msg", "")))
            self._paragraph(UNREACHABLE)

    # --- at the end ------------------------------------------------------------------------------------------------

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """How each environment stands, where the time went, and the recap."""
        self._close_phase()
        self._printer.stop()
        # After a look at several hosts their table has said it, also of those that did not answer.
        if not (self._looked and len(self._board.rows) > 1):
            self._show_standing()
        super().v2_playbook_on_stats(stats)
        # Python would look through everything once more before it ends, which takes a seventh of a second.
        gc.freeze()

    def _show_standing(self) -> None:
        if len(self._standing) == 1:
            for host, standing in self._standing.items():
                self._show(f"\n{standing['name']} on {host} is {views.verdict(standing)}.")
                self._show(_rows([*_standing(standing), *self._took(), *_next(standing["name"])]))
        elif self._standing:
            name = next(iter(self._standing.values()))["name"]
            self._show(f"\n{views.headline(name, self._standing)}")
            self._show(_rows([*self._took(), *_next(name)]))

    def _took(self) -> list[tuple[str, str]]:
        long = [f"{phase} {seconds:.1f} s" for phase, seconds in self._phases.items() if seconds >= WORTH_SAYING]
        return [("took", " · ".join(long))] if long else []

    # --- how -------------------------------------------------------------------------------------------------------

    def _begin(self, task: Any) -> None:
        self._close_phase()
        self._phase = _phase(task)

    def _close_phase(self) -> None:
        now = time.monotonic()
        if self._phase:
            self._phases[self._phase] = self._phases.get(self._phase, 0.0) + now - self._began
        self._phase, self._began = "", now

    def _end(self, result: Any, state: State) -> None:
        if _on_board(result.task):
            with self._printer.lock:
                self._board.end(result.host.get_name(), _phase(result.task), state, time.monotonic())

    def _failed(self, result: Any) -> None:
        self._end(result, "failed")
        answer = result.result
        with self._printer.together():
            self._line(result, "FAILED", "")
            if answer.get("censored"):
                self._paragraph("It failed. What it said is not shown, because it may hold a secret.")
                return
            self._paragraph(str(answer.get("msg") or "It failed and did not say why. Run it again with -v."))
            for key in ("details", "module_stderr", "stderr"):
                if answer.get(key):
                    self._paragraph(str(answer[key]))
                    break

    def _line(self, result: Any, verdict: str, said: str) -> None:
        host = result.host.get_name()
        took = f"{time.monotonic() - self._since.get(host, self._began):6.1f} s"
        color = {"changed": "yellow", "ok": "green"}.get(verdict, "red")
        where = host if _on_board(result.task) or len(self._board.rows) == 1 else "all hosts"
        self._show(f"  {verdict:<9}{took}  {where}  {_label(result.task)}", color)
        if "\n" in said:
            self._paragraph(said)
        elif said:
            self._show(f"{'':22}{said}")

    def _paragraph(self, text: str) -> None:
        self._show("\n" + textwrap.indent(textwrap.dedent(text.strip("\n")).rstrip(), "    "))

    def _show(self, text: str, color: str | None = None) -> None:
        self._display.display(text, color=color)


class Printer:
    """Prints above the board, which it keeps on the terminal while a run goes on.

    Everything that Ansible prints goes through its one `Display`, warnings and what workers say as well, so that is
    where the board gets out of the way.
    """

    def __init__(self, display: Any, board: Board) -> None:
        self.lock = threading.RLock()
        self.live = False
        self.document = False
        """Whether stdout is for a document alone."""
        self._board = board
        self._display = display
        self._print = display.display
        self._process = os.getpid()
        self._screen = Screen(self._write, self._size)
        self._over = threading.Event()
        self._depth = 0

    def start(self, *, live: bool, document: bool) -> None:
        """Stand between Ansible and the terminal; with `live`, show the board where there is one."""
        self.document = document
        self._display.display = self.above
        if live and not document and not self.live and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            self.live = True
            threading.Thread(target=self._tick, name="board", daemon=True).start()

    def above(self, msg: str, color: str | None = None, stderr: bool = False, **more: Any) -> None:
        """Print as Ansible's `Display.display` does."""
        if os.getpid() != self._process:
            # A worker hands it to the process that it was forked from, whatever held the lock then.
            self._print(msg, color=color, stderr=stderr, **more)
            return
        with self.together():
            self._print(msg, color=color, stderr=stderr or self.document, **more)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Print what belongs together, with the board out of the way meanwhile."""
        with self.lock:
            self._screen.erase()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                self._draw()

    def write_document(self, text: str) -> None:
        """Print what a program reads."""
        with self.lock:
            self._print(text)

    def stop(self) -> None:
        """Leave the last picture."""
        with self.lock:
            self._over.set()
            self._draw(final=True)
            self._screen.leave()
            self.live = False

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            with self.lock:
                self._draw()

    def _draw(self, *, final: bool = False) -> None:
        if not self.live or self._depth:
            return
        columns, rows = self._size()
        self._screen.draw(self._board.lines(time.monotonic(), width=columns, height=rows, paint=stringc, final=final))

    def _size(self) -> tuple[int, int]:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        # A terminal that does not know its size says 0.
        return columns or 80, rows or 24

    def _write(self, text: str) -> None:
        # What went through Python's buffer stands above it.
        sys.stdout.flush()
        sys.stderr.flush()
        rest = text.encode()
        while rest:
            rest = rest[os.write(sys.stdout.fileno(), rest) :]


def _said(result: Any) -> str:
    if result.task.action not in SAID_BY:
        return ""
    if result.task.action == DEBUG and result.task_fields["args"].get("verbosity", 0) > 0:
        return ""
    # Of a task that was repeated, what each time had to say, once.
    each = [one for one in result.result.get("results") or [result.result] if not one.get("skipped")]
    return " ".join(dict.fromkeys(str(one["msg"]) for one in each if one.get("msg")))


def _on_board(task: Any) -> bool:
    """Whether it is done on a host, and not said of all of them."""
    return task.action not in INCLUDES and not (task.run_once and task.action in (DEBUG, FAIL))


def _of_engine(task: Any) -> bool:
    return str(task.action).startswith("slipway_")


def _failed_as_data(result: Any) -> bool:
    """Whether the engine refused, and the play goes on to decide for all hosts what that means."""
    answer = result.result
    return _of_engine(result.task) and not answer.get("ok") and ("exit" in answer or "failed_when_result" in answer)


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
        return FOLDED.get(verb, verb) if bar else "check"
    return role


def _standing(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("release", f"{status['release']}   schema {status['schema'] or '-'}")]
    for name, service in status["services"].items():
        digest = service["image"].partition("@")[2][:19]
        rows.append((name, f"{service['url'] or 'answers nobody'}   {service['tag']}   {digest}"))
    rows += [("differs", _difference(one)) for one in status["differences"]]
    if closed := status["maintenance"]:
        rows.append(("closed", f"in maintenance since {closed['since'][:19]}, by {closed['by']}: {closed['reason']}"))
    if lease := status["lease"]:
        rows.append(("lease", f"{lease['by']} has it, run {lease['run']}, {lease['what']}"))
    return rows


def _next(name: str) -> list[tuple[str, str]]:
    sudo = "" if os.geteuid() == 0 else "sudo "
    return [
        ("next", f"{sudo}slipway status --name {name}    how it stands"),
        ("", f"{sudo}slipway logs --name {name} -f   what it prints"),
        ("", f"{sudo}slipway rollback --name {name}  back to the release before"),
    ]


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"  {label:<{width}}  {text}".rstrip() for label, text in rows)


def _difference(one: Mapping[str, str]) -> str:
    return f"{one['where']} {one['field']}: {one['found'] or '-'} instead of {one['declared'] or '-'}"
