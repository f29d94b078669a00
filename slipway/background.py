"""What goes on after a call has answered, in a process of its own that outlives it."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_background(act: Callable[[], object]) -> None:
    """Return at once, while a process of its own does `act`.

    It has what this one has open, locks among it, but neither its input nor its output: whoever waits for the end of
    those is not kept. What goes wrong there nobody is told, unless `act` notes it.
    """
    if os.fork():
        return
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        act()
    finally:
        # No more of the program runs here: its answer and its tidying are the other process's.
        os._exit(0)
