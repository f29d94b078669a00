"""What is watched while traffic moves: what clients miss, what is still under way, and how the new release bears up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from slipway.gate import fetch
from slipway.network import established

PROBES_A_SECOND = 20
PATIENCE = 1.0
"""Seconds after which a probe counts as not answered."""
LATE = 0.5
"""Seconds from which on a probe that was answered in the end has waited to be served."""
LOOK = 0.1
"""Seconds between two looks at connections, containers and the access log."""
SERVER_ERROR = 500


class Prober:
    """Asks the edge 20 times a second, as a client would, and adds up for how long nobody was served.

    What counts is the time from the first probe that fails until one is answered, and that of one that had to wait for
    its answer. `missed` is in seconds, with a resolution of one probe: 50 ms.
    """

    def __init__(self, targets: Iterable[tuple[int, str]]) -> None:
        self._targets = list(targets)
        """Loopback port and path of each service."""
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=[at], daemon=True) for at in range(len(self._targets))]
        self._missed = [0.0] * len(self._targets)

    @property
    def missed(self) -> float:
        """Seconds in which the service that was missed longest did not answer."""
        return max(self._missed, default=0.0)

    def __enter__(self) -> Prober:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, at: int) -> None:
        port, path = self._targets[at]
        pause = 1 / PROBES_A_SECOND
        since: float | None = None
        while not self._end.is_set():
            began = time.monotonic()
            answer = fetch("127.0.0.1", port, path, PATIENCE)
            now = time.monotonic()
            if answer.error or answer.status >= SERVER_ERROR:
                since = began if since is None else since
            elif since is not None:
                self._missed[at] += now - since
                since = None
            elif now - began > LATE:
                self._missed[at] += now - began
            self._end.wait(max(pause - (now - began), 0.0))
        if since is not None:
            self._missed[at] += time.monotonic() - since


class Soak(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How long a release is watched once it serves, and what it may get wrong."""

    seconds: float = 0.0
    max_error_percent: float = 5.0
    """Share of answers of 500 and above."""
    min_errors: int = 3
    """Fewer such answers say nothing."""


class AccessLog:
    """The edge's access log of an environment from now on: answers, and how many of them were errors."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""
        self.answers = 0
        self.errors = 0

    def read(self) -> None:
        """Count what was answered since the last look."""
        try:
            with self._path.open("rb") as stream:
                if stream.seek(0, 2) < self._offset:
                    # It was rotated meanwhile.
                    self._offset, self._rest = 0, b""
                stream.seek(self._offset)
                *lines, self._rest = (self._rest + stream.read()).split(b"\n")
                self._offset = stream.tell()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                status = msgspec.json.decode(line, type=_Line).status
            except msgspec.MsgspecError:
                continue
            self.answers += 1
            self.errors += status >= SERVER_ERROR

    def complaint(self, soak: Soak) -> str:
        """What is wrong with the answers so far; empty when nothing is."""
        self.read()
        share = 100 * self.errors / self.answers if self.answers else 0.0
        if self.errors < soak.min_errors or share <= soak.max_error_percent:
            return ""
        return f"{self.errors} of {self.answers} answers ({share:.0f} %) were server errors"


class _Line(msgspec.Struct):
    status: int


def soak(until: float, complaint: Callable[[], str]) -> str:
    """Look again and again until the time (`time.monotonic`) is over; the first complaint ends it."""
    while time.monotonic() < until:
        if wrong := complaint():
            return wrong
        time.sleep(LOOK)
    return complaint()


def drain(targets: list[tuple[str, int]], until: float) -> bool:
    """Wait until no connection to any of the targets is left; False when the time (`time.monotonic`) was over first."""
    while established(targets):
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK / 4)
    return True
