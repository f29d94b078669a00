"""What the kit costs, beside the same thing done by hand with docker compose on the same machine in the same run.

    make bench              a few minutes
    make bench fresh=1      and a fresh machine from nothing, some minutes more
    make bench only=ssh     only on a host of its own over SSH; only=here on this machine by a local connection,
                            only=fleet on six hosts, and on two that are cold; only=kept what backups cost

It needs root, or sudo that asks for no password, and a machine that has been set up (tests/setup.yml).
It deploys an environment of its own, `slipway-bench`, and another on a host that it boots; it removes all of it in
the end. A bound that is missed is shown as missed; the exit code only says whether everything could be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from tests.bench.commands import step
from tests.bench.fleet import Fleet
from tests.bench.here import NAME, Here
from tests.bench.kept import Kept
from tests.bench.reach import Reach
from tests.bench.table import Row, render
from tests.fresh.machine import Machine, phases


def main() -> int:
    """Measure, print the table, and clean up whatever happens."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--fresh", action="store_true", help="measure `make up` on a fresh machine too")
    parser.add_argument("--only", choices=list(WHERE), help="measure there alone")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    # Build machines set it, operators do not: each run would compile the kit's plugins anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rows: list[Row] = []
    said: list[str] = []
    complaints: list[str] = []
    for kind in (WHERE[options.only],) if options.only else WHERE.values():
        with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder, contextlib.ExitStack() as last:
            where = kind(Path(folder))
            last.callback(_to_the_end, where.remove)
            where.start()
            rows += where.rows()
        said += where.said
        complaints += where.complaints
    if options.fresh:
        row, took = fresh()
        rows.append(row)
        said.append(f"fresh machine: {took}")
    _say("\n".join(["", render(rows), "", NOTES, "Where the time went", *_indented(said), ""]))
    if complaints:
        _say("\n".join(["Not as it should be", *_indented(complaints), ""]))
    missed = [row.what for row in rows if not row.within]
    _say(f"OVER its bound: {', '.join(missed)}." if missed else "All bounds are kept.")
    return 0


NOTES = """\
n          how often it was measured; the median counts
floor      docker compose by hand, on the same image and an equivalent compose file, in this run;
           over SSH: pull, migrate and up --wait in one ssh call, also where nothing changes
more       the median less that of the floor
ssh        a host of its own, by an SSH connection that each run opens anew; soak and drain, which come once traffic
           has moved, are taken off by the ledger where it says so
gap        longest time between two good answers, asked 100 times a second
image      unpacked: the engine's Size; gzipped: config and layers of the registry's manifest, in 10^6 bytes
fleet      hosts of a lab on this machine, which share its cores; the floor is the same on one of them, and the row
           by hand tells how much of the ratio is the machine's; played again: each call of the engine takes as long
           as it did at best when nothing else ran, and no processor, so what is measured is what the controller adds;
           soak: the time that a release is watched, which is part of each deploy unless an inventory says otherwise
cold       a bare host until it is verified; the floor is apt, pull, migrate, up --wait over ssh on another one;
           what is removed before it makes a file system without a journal slow for minutes, so measure it first
kept       a backup of 1 GB to a folder of this machine, with wrk asking eight at a time for a document meanwhile;
           the floor is what it gets while there is none
idle RSS   VmRSS of the container's processes after 100 requests, in 2^20 bytes
"""


def fresh() -> tuple[Row, str]:
    """`make up` on a fresh Debian 13, from what is committed here, and where its time went."""
    step("a fresh machine; this takes minutes")
    with Machine(f"{NAME}-fresh", system="debian13", user="root") as machine:
        machine.install_what_the_readme_names()
        machine.clone()
        up = machine.make("up").ok()
        return Row("`make up` on a fresh machine", "s", [up.seconds], bound=150), phases(up.output)


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _to_the_end(act: Callable[[], None]) -> None:
    """Do something that nobody interrupts."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        act()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


WHERE: dict[str, type[Here | Reach | Fleet | Kept]] = {"here": Here, "ssh": Reach, "fleet": Fleet, "kept": Kept}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Interrupted. What was made has been removed.")
