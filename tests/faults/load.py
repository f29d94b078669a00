"""Load on a service as its users make it: a hundred requests a second, a slow one and a stream of events always open.

    python -m tests.faults.load 10.213.3.11:80 shop.test

A process of its own, so that nothing a test does delays a request. The loop is open: requests are sent when they are
due, whatever became of those before, so a service that stalls does not make its own load lighter. Connections are
kept open between requests. It runs until its stdin ends, and then writes what was seen as JSON (`Seen`); a first
line `serving` says that all three kinds of load have had good answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType

import msgspec

from tests.faults.seen import Request, Seen, Stream

KIT = Path(__file__).parents[2]

RATE = 100
"""Requests a second."""
CONNECTIONS = 8
"""Kept open and used in turn; more are opened when all of them are busy, and closed when done."""
PATIENCE = 10.0
"""Seconds after which a user gives up."""
STEADY = 20
"""Good answers that show that the service serves."""

PATH, SLOW_PATH, EVENTS_PATH = "/", "/slow?seconds=5", "/events"

OK = 200


class BrokenError(Exception):
    """No whole answer came; the text says why."""


class UnansweredError(BrokenError):
    """The server closed the connection before the first byte of an answer."""


class Load:
    """The load on `address` (`host:port`) for as long as the `with` block lasts; then `seen` tells what came of it.

    `host` is the name that requests ask for. The block begins when the service answers everything, for which it has
    `within` seconds.
    """

    seen: Seen

    def __init__(self, address: str, host: str, within: float = 10.0) -> None:
        self._within = within
        self._command = [sys.executable, "-m", "tests.faults.load", address, host]

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(self._command, cwd=KIT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], self._within)
        if not ready or os.read(self._process.stdout.fileno(), 8) != b"serving\n":
            self._end()
            raise AssertionError(f"The service does not serve before anything is done to it.\n{self.seen}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if error is not None:
            error.add_note(f"What the users saw meanwhile:\n{self.seen}")

    def _end(self) -> None:
        output, _ = self._process.communicate()
        self.seen = msgspec.json.decode(output.removeprefix(b"serving\n"), type=Seen)


class Connection:
    """One connection that is kept open between requests."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._ended = False
        self.used = False
        self.reusable = True

    @classmethod
    async def open(cls, address: tuple[str, int]) -> Connection:
        """Connect. Raises :class:`BrokenError`."""
        connecting = socket.socket()
        connecting.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connecting, address)
        except OSError as error:
            connecting.close()
            raise BrokenError(f"not connected: {_name(error)}") from error
        except BaseException:
            connecting.close()
            raise
        return cls(connecting)

    def alive(self) -> bool:
        """Whether the server has kept it open, as far as can be told by now."""
        try:
            # Data that nobody asked for would be as wrong as an end.
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    async def ask(self, path: str, host: str) -> tuple[int, dict[str, str]]:
        """Send a GET; give the status and the headers of the answer, names in lower case."""
        try:
            await self._loop.sock_sendall(self._socket, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        except OSError as error:
            raise UnansweredError(f"not sent: {_name(error)}") from error
        head = await self._until(b"\r\n\r\n", "the head")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.used = True
        self.reusable = headers.get("connection", "").lower() != "close"
        return _number(first[9:12], 10), headers

    async def body(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        """Yield the body piece by piece. Raises :class:`BrokenError` where it ends before its time."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := _number(await self._until(b"\r\n", "a chunk"), 16):
                yield await self._exactly(size)
                await self._until(b"\r\n", "a chunk")
            await self._until(b"\r\n", "the last chunk")
        elif "content-length" in headers:
            yield await self._exactly(_number(headers["content-length"], 10))
        else:
            # Its end is that of the connection, so what is cut cannot be told from what has ended.
            while not self._ended:
                await self._receive("the body", may_end=True)
                piece, self._received = self._received, b""
                yield piece

    async def _until(self, mark: bytes, what: str) -> bytes:
        while mark not in self._received:
            await self._receive(what)
        found, _, self._received = self._received.partition(mark)
        return found

    async def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            await self._receive("the body")
        found, self._received = self._received[:size], self._received[size:]
        return found

    async def _receive(self, what: str, *, may_end: bool = False) -> None:
        try:
            data = await self._loop.sock_recv(self._socket, 65536)
        except OSError as error:
            ended = _name(error)
        else:
            self._received += data
            if data:
                return
            ended = "closed"
            self._ended = True
            self.reusable = False
            if may_end:
                return
        # Of the answers before, nothing is left: each was read to its end.
        if what == "the head" and not self._received:
            raise UnansweredError(f"{ended} before an answer")
        raise BrokenError(f"{ended} in the middle of {what}")


class Users:
    """All that goes on at once."""

    def __init__(self, address: tuple[str, int], host: str, say_serving: Callable[[], object]) -> None:
        self._address = address
        self._host = host
        self._say_serving = say_serving
        self._idle: deque[Connection] = deque()
        self._requests: list[Request] = []
        self._slow: list[Request] = []
        self._streams: list[Stream] = []
        self._good_in_a_row = 0
        self._said = False

    async def use(self, ended: asyncio.Event) -> Seen:
        """Ask until `ended`; then wait for what is under way, but not for what takes long by design."""
        long = [asyncio.create_task(self._slow_ones()), asyncio.create_task(self._events())]
        under_way: set[asyncio.Task[None]] = set()
        began = time.monotonic()
        for tick in itertools.count():
            due = began + tick / RATE
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), max(0.0, due - time.monotonic()))
            if ended.is_set():
                break
            task = asyncio.create_task(self._steady(due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
        for task in long:
            task.cancel()
        await asyncio.gather(*long, return_exceptions=True)
        self._requests.sort(key=lambda request: request.due)
        return Seen(requests=self._requests, slow=self._slow, streams=self._streams)

    async def _steady(self, due: float) -> None:
        request = await self._request(PATH, due, PATIENCE)
        self._requests.append(request)
        self._good_in_a_row = self._good_in_a_row + 1 if request.good else 0
        if not self._said and self._good_in_a_row >= STEADY and any(stream.events for stream in self._streams):
            self._said = True
            self._say_serving()

    async def _slow_ones(self) -> None:
        while True:
            self._slow.append(await self._request(SLOW_PATH, time.monotonic(), 2 * PATIENCE))
            if not self._slow[-1].good:
                await asyncio.sleep(0.1)

    async def _request(self, path: str, due: float, patience: float) -> Request:
        request = Request(due=due, sent=time.monotonic(), done=0.0)
        try:
            async with asyncio.timeout(patience):
                await self._answer(request, path)
        except BrokenError as error:
            request.error = str(error)
        except TimeoutError:
            request.error = f"no answer in {patience:g} s"
        request.done = time.monotonic()
        return request

    async def _answer(self, request: Request, path: str) -> None:
        connection = self._kept_open() or await Connection.open(self._address)
        while True:
            try:
                request.status, headers = await connection.ask(path, self._host)
                body = b"".join([piece async for piece in connection.body(headers)])
            except UnansweredError:
                connection.close()
                if not connection.used:
                    raise
                # The server closed it while the request was on its way. Every HTTP client tries that once more.
                connection = await Connection.open(self._address)
                request.retried = True
            except BaseException:
                connection.close()
                raise
            else:
                break
        if connection.reusable and len(self._idle) < CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()
        request.version = _version(body)
        if request.status != OK:
            request.error = f"answered {request.status}"
        elif path == PATH and not request.version:
            request.error = "answered 200 and no version, so this was not the application"

    def _kept_open(self) -> Connection | None:
        while self._idle:
            # The one that was idle for longest, so that all of them are used.
            connection = self._idle.popleft()
            if connection.alive():
                return connection
            connection.close()
        return None

    async def _events(self) -> None:
        while True:
            stream = Stream(opened=time.monotonic())
            self._streams.append(stream)
            await self._follow(stream)
            stream.done = time.monotonic()
            if stream.ending == "refused":
                await asyncio.sleep(0.1)

    async def _follow(self, stream: Stream) -> None:
        try:
            connection = await Connection.open(self._address)
        except BrokenError as error:
            stream.ending, stream.error = "refused", str(error)
            return
        try:
            status, headers = await connection.ask(EVENTS_PATH, self._host)
            if status != OK:
                stream.ending, stream.error = "refused", f"answered {status}"
                return
            async for piece in connection.body(headers):
                for line in piece.splitlines():
                    if line.startswith(b"data:"):
                        stream.events += 1
                        stream.version = line.removeprefix(b"data:").decode().strip()
            stream.ending = "ended"
        except BrokenError as error:
            stream.ending, stream.error = ("cut" if stream.events else "refused"), str(error)
        finally:
            connection.close()


def _version(body: bytes) -> str:
    with contextlib.suppress(ValueError):
        document = json.loads(body)
        if isinstance(document, dict):
            return str(document.get("version", ""))
    return ""


def _number(text: str | bytes, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise BrokenError(f"this is not HTTP: {text!r}") from None


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


async def _main(address: str, host: str) -> Seen:
    where, _, port = address.rpartition(":")
    ended = asyncio.Event()

    def say_serving() -> None:
        sys.stdout.write("serving\n")
        sys.stdout.flush()

    def end() -> None:
        loop.remove_reader(sys.stdin.fileno())
        ended.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), end)
    return await Users((where, int(port)), host, say_serving).use(ended)


if __name__ == "__main__":
    # A service that is away has PATIENCE seconds of requests waiting.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with contextlib.suppress(PermissionError):
        # What makes the test busy shall not make the load late.
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    sys.stdout.write(msgspec.json.encode(asyncio.run(_main(*sys.argv[1:]))).decode())
