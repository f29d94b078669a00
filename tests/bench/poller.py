"""Asks a service a hundred times a second, to see for how long nobody was answered."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

EVERY = 0.01
"""Seconds between two requests; each has a connection of its own, so a slow one delays no other."""
TIMEOUT = 5.0


@dataclass(frozen=True)
class Seen:
    """`gap`: the longest time between two good answers, in seconds. `refused`: requests that got no good answer."""

    gap: float
    refused: int
    asked: int


@dataclass
class Poller:
    """Polls `path` of a service for as long as the `with` block lasts; `seen` tells what came of it.

    `host` is the name that is asked for.
    """

    port: int
    address: str = "127.0.0.1"
    host: str = "localhost"
    path: str = "/api/health"
    _good: list[float] = field(default_factory=list)
    _bad: int = 0
    _ended: bool = False

    def __enter__(self) -> Poller:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._poll()), name="poller")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()

    def seen(self) -> Seen:
        """What was seen, once the block has ended."""
        good = sorted(self._good)
        gaps = [after - before for before, after in itertools.pairwise(good)]
        return Seen(gap=max(gaps, default=float("inf")), refused=self._bad, asked=len(good) + self._bad)

    async def _poll(self) -> None:
        with contextlib.suppress(PermissionError):
            # What keeps this machine busy meanwhile shall not make the poll late. It is the thread's alone.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -10)
        began = time.monotonic()
        asked: set[asyncio.Task[None]] = set()
        tick = 0
        while not self._ended:
            task = asyncio.create_task(self._ask())
            asked.add(task)
            task.add_done_callback(asked.discard)
            tick += 1
            # By the clock and not by the time the last one took, so that a busy machine is not asked less often.
            await asyncio.sleep(max(0.0, began + tick * EVERY - time.monotonic()))
        await asyncio.gather(*asked)

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                good = await self._good_answer()
        except (OSError, TimeoutError):
            good = False
        if good:
            self._good.append(time.monotonic())
        else:
            self._bad += 1

    async def _good_answer(self) -> bool:
        reader, writer = await asyncio.open_connection(self.address, self.port)
        try:
            writer.write(f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.close()
        return b" 200 " in answer.partition(b"\r\n")[0]


def watched(poller: Poller, act: Callable[..., T], *arguments: object) -> tuple[T, Seen]:
    """What an act answers, and what a client saw of it, a second before and after included."""
    with poller:
        time.sleep(1)
        answer = act(*arguments)
        time.sleep(1)
    return answer, poller.seen()
