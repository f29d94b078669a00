"""How fast the data of a backup flows, so that what serves comes first.

It flows through the Docker daemon, which copies it for whoever runs the command: a process with a low priority can be
put behind what serves, and the daemon cannot. So the data flows slowly while processors are short on the host.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import BinaryIO

SLOW = 6 * 10**6
"""Bytes a second on a host that is busy."""
SLOWEST = 24
"""How many times as long a command may take whose data flows slowly."""
WINDOW = 1.0
"""Seconds that the host is watched before it is judged, while data flows slowly."""
CALM = 5
"""Windows in which data flows freely on a host that was found calm; then it is watched again."""
BUSY = 0.1
"""Share of the time in which something waited for a processor, from which on a host is busy."""
PRESSURE = Path("/proc/pressure/cpu")
LOWEST = 19
"""The lowest of priorities."""
CHUNK = 2**16


def step_aside() -> None:
    """Have what serves come before this process, and before those that it starts."""
    os.nice(LOWEST)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if os.isatty(0):
        # Whoever sits there may want to interrupt it.
        return
    # Priorities count within a session, where the kernel groups by sessions.
    with suppress(PermissionError):
        os.setsid()
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(LOWEST))


def stalled() -> float | None:
    """Seconds since the start in which something waited for a processor; None where the kernel does not tell."""
    # Source: Documentation/accounting/psi.rst: `some avg10=0.00 avg60=0.00 avg300=0.00 total=<microseconds>`.
    try:
        return int(PRESSURE.read_text().split()[4].removeprefix("total=")) / 10**6
    except (OSError, ValueError, IndexError):
        return None


class Pace:
    """The pace of one command's data. `hurry` says whether somebody waits for it, `stalled` is as :func:`stalled`."""

    def __init__(self, hurry: Callable[[], bool], stalled: Callable[[], float | None] = stalled) -> None:
        self._hurry = hurry
        self._stalled = stalled
        self._free = 0
        """Windows in which data flows freely, with this one."""

    @contextmanager
    def outward(self, to: BinaryIO) -> Iterator[int]:
        """An end of a pipe for a command to write to; all of it is in the file `to` afterwards."""
        reading, writing = os.pipe()

        def flow() -> None:
            with os.fdopen(reading, "rb", buffering=0) as source:
                self.copy(source, to)

        with _beside(flow, writing):
            yield writing

    @contextmanager
    def inward(self, source: BinaryIO) -> Iterator[int]:
        """An end of a pipe for a command to read the file `source` from."""
        reading, writing = os.pipe()

        def flow() -> None:
            # A command need not read all of it.
            with os.fdopen(writing, "wb") as to, suppress(BrokenPipeError):
                self.copy(source, to)

        with _beside(flow, reading):
            yield reading

    def copy(self, source: BinaryIO, to: BinaryIO) -> None:
        """Copy what is left of a file."""
        self._free = int(self._hurry())
        self._begin()
        while chunk := source.read(CHUNK):
            to.write(chunk)
            self._after(len(chunk))

    def _begin(self) -> None:
        self._began, self._size, self._waited = time.monotonic(), 0, self._stalled()

    def _after(self, size: int) -> None:
        self._size += size
        if not self._free:
            time.sleep(max(0.0, self._size / SLOW - (time.monotonic() - self._began)))
        took = time.monotonic() - self._began
        if took < WINDOW:
            return
        if self._hurry():
            self._free = 1
        elif self._free:
            self._free -= 1
        elif self._calm(took):
            self._free = CALM
        self._begin()

    def _calm(self, took: float) -> bool:
        now = self._stalled()
        return self._waited is not None and now is not None and now - self._waited < BUSY * took


@contextmanager
def _beside(flow: Callable[[], None], given: int) -> Iterator[None]:
    """Have data flow while a command runs that is given one end of a pipe; raises what kept it from flowing."""
    failed: list[OSError] = []

    def run() -> None:
        try:
            flow()
        except OSError as error:
            failed.append(error)

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        # The command has ended, so the other end finds nobody here.
        os.close(given)
        thread.join()
    if failed:
        raise failed[0]
