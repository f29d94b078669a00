"""The live picture of a run: a row for each host, a column for each phase, and what is being done now.

:class:`Board` knows what happened and lays it out; :class:`Screen` keeps a block of lines in its place on a terminal.
Neither knows Ansible, and time is given to them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

State = Literal["", "ok", "changed", "failed", "unreachable"]
Paint = Callable[[str, str], str]
"""Gives a text its colour, by Ansible's name of it."""

DEPLOY = ("check", "preflight", "stage", "migrate", "activate", "verify")
"""The phases of a deploy, which are shown before they begin."""
FORETELLING = ("preflight", "stage")
"""Phases that only a deploy begins with."""
COLORS = {"ok": "green", "changed": "yellow", "failed": "red", "unreachable": "red"}
GAP = "  "
NARROWEST = 8
"""Columns that a phase has at least: `✓ 12.3 s`, so that the table does not move while it fills."""
SETTLED = 0.5
"""Seconds without a task after which a phase is shown as over, so that a row of short tasks does not blink."""
AROUND = 6
"""Lines of a terminal that are not for hosts: a blank, the header, what is done now, the cursor's, and two of what was
printed before. Erasing a block that fills the whole screen would leave a copy of it in the history of some terminals.
"""
NAMED = 3
"""Up to so many hosts are named; more are counted."""
LONGEST_HOST = 20
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
UPGRADES: dict[State, int] = {"": 0, "ok": 1, "changed": 2, "failed": 3, "unreachable": 4}


@dataclass
class Cell:
    """One phase on one host."""

    state: State = ""
    """Empty until a task of it ended that was not skipped."""
    seconds: float = 0.0
    """What its tasks took that have ended."""
    began: float | None = None
    """Since when a task of it is at work."""
    ended: float = 0.0


@dataclass
class Row:
    """One host."""

    cells: dict[str, Cell] = field(default_factory=dict)
    doing: str = ""
    """What it is at work on now."""

    @property
    def bad(self) -> bool:
        return any(cell.state in ("failed", "unreachable") for cell in self.cells.values())

    @property
    def at_work(self) -> bool:
        return any(cell.began is not None for cell in self.cells.values())


class Board:
    """Which host is where."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._phases: list[str] = []

    def expect(self, hosts: Sequence[str]) -> None:
        """Give hosts a row before anything is done on them."""
        for host in hosts:
            self.rows.setdefault(host, Row())

    def begin(self, host: str, phase: str, doing: str, now: float) -> None:
        """A task begins."""
        self.expect([host])
        self._know(phase)
        row = self.rows[host]
        row.cells.setdefault(phase, Cell()).began = now
        row.doing = doing

    def end(self, host: str, phase: str, state: State, now: float) -> None:
        """A task ended; the state is empty where it was skipped."""
        self.expect([host])
        self._know(phase)
        row = self.rows[host]
        cell = row.cells.setdefault(phase, Cell())
        if state and cell.began is not None:
            cell.seconds += now - cell.began
        cell.began, cell.ended, row.doing = None, now, ""
        cell.state = max(cell.state, state, key=UPGRADES.__getitem__)

    def _know(self, phase: str) -> None:
        if phase not in self._phases:
            begun = [at for at, known in enumerate(self._phases) if self._begun(known)]
            self._phases.insert(begun[-1] + 1 if begun else 0, phase)
        if phase in FORETELLING:
            after = DEPLOY[DEPLOY.index(phase) + 1 :]
            self._phases += [one for one in after if one not in self._phases]

    def _begun(self, phase: str) -> bool:
        return any(phase in row.cells for row in self.rows.values())

    # --- as text ---------------------------------------------------------------------------------------------------

    def lines(self, now: float, *, width: int, height: int, paint: Paint, final: bool = False) -> list[str]:
        """Lay it out within so many columns and rows.

        The last picture of a run (`final`) leaves out what never began, and shows nothing as being done. Of one host or
        one phase there is none: what else is printed says as much.
        """
        rows = {host: row for host, row in self.rows.items() if row.cells or not final}
        phases = [one for one in self._phases if any(_happened(row, one) for row in rows.values()) or not final]
        if not phases or (final and (len(rows) == 1 or len(phases) == 1)):
            return []
        shown, left_out = _within(rows, len(rows) if final else height - AROUND)
        cells = {host: [self._cell(row, phase, now, final) for phase in phases] for host, row in shown.items()}
        names = {host: f"{'✗' if row.bad else ' '} {_cut(host, LONGEST_HOST)}" for host, row in shown.items()}
        first = max(map(len, ["  HOST", *names.values()]))
        widths = [
            max(len(phase), NARROWEST, *(len(row[at][0]) for row in cells.values())) for at, phase in enumerate(phases)
        ]
        kept = _fitting(widths, width - 1 - first, self._newest(phases))
        mark = "…" if kept.start > 0 else " "
        head = [phases[at].ljust(widths[at]) for at in kept]
        lines = ["", _cut(f"{'  HOST'.ljust(first)} {mark}{GAP.join(head)}".rstrip(), width - 1)]
        for host, row in shown.items():
            name = paint(names[host].ljust(first), "red") if row.bad else names[host].ljust(first)
            painted = (_painted(*cells[host][at], widths[at], paint) for at in kept)
            lines.append(f"{name}{GAP}{GAP.join(painted)}".rstrip())
        if left_out:
            lines.append(_cut(_counted(left_out), width - 1))
        if not final:
            lines.append(_cut(self._now(now), width - 1))
        return lines

    def _newest(self, phases: Sequence[str]) -> int:
        return max((at for at, phase in enumerate(phases) if self._begun(phase)), default=0)

    def _cell(self, row: Row, phase: str, now: float, final: bool) -> tuple[str, str]:
        """Text and colour."""
        cell = row.cells.get(phase)
        later = self._phases[self._phases.index(phase) + 1 :]
        passed = final or row.bad or any(one in row.cells for one in later)
        if cell and not final and (cell.began is not None or (not passed and now - cell.ended < SETTLED)):
            return f"▸ {_clock(cell.seconds + (now - cell.began if cell.began is not None else 0))}", "cyan"
        if cell is None or not cell.state:
            return ("-" if passed else "·"), ""
        if cell.state == "unreachable":
            return "unreachable", COLORS[cell.state]
        return f"{'✗' if cell.state == 'failed' else '✓'} {duration(cell.seconds)}", COLORS[cell.state]

    def _now(self, now: float) -> str:
        at_work: dict[str, list[str]] = {}
        for host, row in self.rows.items():
            if row.doing:
                at_work.setdefault(row.doing, []).append(host)
        told = []
        for doing, hosts in at_work.items():
            began = min(c.began for host in hosts for c in self.rows[host].cells.values() if c.began is not None)
            where = "" if len(self.rows) == 1 else f" on {some(hosts, len(self.rows))}"
            told.append(f"{_clock(now - began)}  {doing}{where}")
        return f"  … {'; '.join(told)}".rstrip()


def duration(seconds: float) -> str:
    """A tenth of a second as long as it matters."""
    return f"{seconds:.1f} s" if seconds < 60 else _clock(seconds)  # noqa: PLR2004 - seconds of a minute


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} m {rest:02} s" if minutes else f"{rest} s"


def some(hosts: Sequence[str], of: int) -> str:
    """Name a few hosts, count many."""
    if len(hosts) == of:
        return f"all {of} hosts"
    return ", ".join(hosts) if len(hosts) <= NAMED else f"{len(hosts)} of {of} hosts"


def _happened(row: Row, phase: str) -> bool:
    return phase in row.cells and bool(row.cells[phase].state)


def _within(rows: dict[str, Row], room: int) -> tuple[dict[str, Row], list[Row]]:
    """The rows that there is room for, in their order: first what failed, then what is at work, then who waits."""
    if len(rows) <= room:
        return rows, []

    def rank(host: str) -> int:
        row = rows[host]
        return 0 if row.bad else 1 if row.at_work else 2 if not row.cells else 3

    chosen = set(sorted(rows, key=rank)[: max(room - 1, 1)])
    return (
        {host: row for host, row in rows.items() if host in chosen},
        [row for host, row in rows.items() if host not in chosen],
    )


def _counted(rows: Sequence[Row]) -> str:
    kinds = [
        ("failed", sum(row.bad for row in rows)),
        ("at work", sum(row.at_work and not row.bad for row in rows)),
        ("waiting", sum(not row.cells for row in rows)),
    ]
    rest = len(rows) - sum(count for _, count in kinds)
    told = ", ".join(f"{count} {kind}" for kind, count in [*kinds, ("good so far", rest)] if count)
    return f"  and {len(rows)} more: {told}"


def _fitting(widths: Sequence[int], room: int, newest: int) -> range:
    """The columns that there is room for: what is over leaves first, then what is far ahead; the newest stays."""
    first, last = 0, len(widths)
    while first + 1 < last and sum(widths[first:last]) + len(GAP) * (last - first) > room:
        if first < newest:
            first += 1
        else:
            last -= 1
    return range(first, last)


def _painted(text: str, color: str, width: int, paint: Paint) -> str:
    padding = " " * (width - len(text))
    return (paint(text, color) if color else text) + padding


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"


class Screen:
    """A block of lines at the end of what a terminal shows, redrawn where it is. The cursor rests below it."""

    def __init__(self, write: Callable[[str], None], size: Callable[[], tuple[int, int]]) -> None:
        """`size` tells columns and rows; it is asked each time, since people pull at windows."""
        self._write = write
        self.size = size
        self._shown: list[str] = []

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines instead of those before, in one write, which does not flicker."""
        if list(lines) == self._shown:
            return
        self._write(self._home() + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._shown = list(lines)

    def erase(self) -> None:
        """Make room for something else."""
        if self._shown:
            self._write(f"{self._home()}\x1b[J")
            self._shown = []

    def leave(self) -> None:
        """Let the block stand as it is; what comes next is below it."""
        self._shown = []

    def _home(self) -> str:
        # Where the window has become narrower, the terminal has broken lines in two.
        columns = max(self.size()[0], 1)
        up = sum(max(math.ceil(len(ESCAPES.sub("", line)) / columns), 1) for line in self._shown)
        return f"\r\x1b[{up}A" if up else "\r"
