"""The load sees what users see: on a server that fails in known ways, its figures are those ways."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults.load import Load
from tests.faults.seen import Request, Seen, Stream

NOISE = 150.0
"""Milliseconds that a busy machine may add to a figure."""


class Server:
    """A small server on a loopback port that a test makes misbehave."""

    def __init__(self) -> None:
        self.version = "1.0"
        self.status = 200
        self.body: bytes | None = None
        self.hangs_until = 0.0
        self.breaks_off = False
        self.slow_seconds = 0.3
        self.open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.port = 0
        self.listen()

    def close(self) -> None:
        self.refuse()
        self.do(self._cancel)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def listen(self) -> None:
        async def start() -> None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

        asyncio.run_coroutine_threadsafe(start(), self._loop).result(5)

    def refuse(self) -> None:
        """No longer listen, and break every connection, as a killed server does."""
        self.do(self._server.close)
        self.drop()

    def drop(self) -> None:
        """Close all connections, whatever is under way on them."""

        def abort() -> None:
            for writer in self.open:
                writer.transport.abort()

        self.do(abort)

    def do(self, act: Callable[[], object]) -> None:
        async def call() -> None:
            act()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(5)

    def _cancel(self) -> None:
        for task in asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._answer(head.split(b" ")[1].decode(), writer)
        self.open.discard(writer)
        writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        version = json.dumps({"version": self.version}).encode()
        if path == "/events":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while version == json.dumps({"version": self.version}).encode():
                event = f"data: {json.loads(version)['version']}\n\n".encode()
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await asyncio.sleep(0.05)
            writer.write(b"0\r\n\r\n")
            return
        if path == "/slow?seconds=5":
            await asyncio.sleep(self.slow_seconds)
        else:
            await asyncio.sleep(max(0.0, self.hangs_until - time.monotonic()))
        body = version if self.body is None else self.body
        writer.write(b"HTTP/1.1 %d Some\r\nContent-Length: %d\r\n\r\n" % (self.status, len(body)))
        if self.breaks_off:
            writer.write(body[: len(body) // 2])
            await writer.drain()
            writer.transport.abort()
        else:
            writer.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def under_load(server: Server, *acts: Callable[[], object]) -> Seen:
    """Some load before, between and after what is done to the server."""
    with Load(f"127.0.0.1:{server.port}", "shop.test") as load:
        for act in acts:
            time.sleep(0.3)
            act()
        time.sleep(0.3)
    return load.seen


def test_a_server_that_serves_has_a_hundred_requests_a_second_and_no_failure(server: Server) -> None:
    seen = under_load(server, lambda: time.sleep(1))
    between = seen.requests[-1].due - seen.requests[0].due
    assert len(seen.requests) == pytest.approx(100 * between + 1, abs=1)
    assert (seen.failed, seen.slow_failed, seen.cut, seen.retried) == ([], [], [], 0)
    assert seen.gap_ms < NOISE
    assert seen.without_service_ms == 0
    assert len(seen.slow) >= 3, "another one is sent as soon as one is answered"
    assert [stream.ending for stream in seen.streams] == ["open"]
    assert seen.versions == ["1.0"]


def test_connections_are_kept_open(server: Server) -> None:
    def count() -> None:
        # Eight in turn, the slow one's and the stream's.
        assert len(server.open) <= 12

    under_load(server, count)


def test_answers_of_500_are_failures_and_the_time_of_them_is_told(server: Server) -> None:
    def fail() -> None:
        server.status = 500
        time.sleep(0.5)
        server.status = 200

    seen = under_load(server, fail)
    assert len(seen.failed) == pytest.approx(50, abs=10)
    assert {request.error for request in seen.failed} == {"answered 500"}
    assert seen.without_service_ms == pytest.approx(500, abs=NOISE)
    assert seen.gap_ms == pytest.approx(500, abs=NOISE)
    assert "answered 500" in str(seen)


def test_a_server_that_is_gone_for_a_while_is_seen_to_be(server: Server) -> None:
    def go_and_come_back() -> None:
        server.refuse()
        time.sleep(0.5)
        server.listen()

    seen = under_load(server, go_and_come_back)
    assert len(seen.failed) == pytest.approx(50, abs=10)
    assert "not connected: ECONNREFUSED" in {request.error for request in seen.failed}
    assert seen.without_service_ms == pytest.approx(500, abs=NOISE)
    assert len(seen.slow_failed) >= 1
    assert [stream.ending for stream in seen.streams][:2] == ["cut", "refused"]


def test_a_server_that_stalls_gets_no_fewer_requests_and_the_wait_is_counted(server: Server) -> None:
    def stall() -> None:
        server.hangs_until = time.monotonic() + 0.6
        time.sleep(0.6)

    seen = under_load(server, stall)
    between = seen.requests[-1].due - seen.requests[0].due
    assert len(seen.requests) == pytest.approx(100 * between + 1, abs=1), "nothing waits for the answer before"
    assert seen.failed == []
    assert seen.gap_ms == pytest.approx(600, abs=NOISE)
    assert seen.longest_ms == pytest.approx(600, abs=NOISE)


def test_a_server_that_never_comes_back_counts_to_the_end(server: Server) -> None:
    def refuse() -> None:
        server.refuse()
        time.sleep(0.3)

    seen = under_load(server, refuse)
    assert seen.without_service_ms == pytest.approx(600, abs=NOISE)
    assert seen.gap_ms == pytest.approx(600, abs=NOISE)


def test_answers_that_break_off_are_failures_and_are_not_sent_again(server: Server) -> None:
    def break_off() -> None:
        server.breaks_off = True
        time.sleep(0.2)
        server.breaks_off = False

    seen = under_load(server, break_off)
    assert len(seen.failed) >= 10
    assert all("in the middle of the body" in request.error for request in seen.failed)
    assert not any(request.retried for request in seen.failed)


def test_connections_closed_while_they_were_idle_are_no_failure(server: Server) -> None:
    seen = under_load(server, *[server.drop] * 3)
    assert seen.failed == []
    assert seen.retried <= 3 * 12, "only what was on its way at that moment is sent again"


def test_an_answer_of_somebody_else_is_no_good_answer(server: Server) -> None:
    def answer_something_else() -> None:
        server.body = b"<h1>It works!</h1>"
        time.sleep(0.2)
        server.body = None

    seen = under_load(server, answer_something_else)
    assert len(seen.failed) >= 10
    assert {request.error for request in seen.failed} == {
        "answered 200 and no version, so this was not the application"
    }


def test_versions_are_told_in_their_order_and_a_stream_that_is_ended_properly_is_not_cut(server: Server) -> None:
    def release() -> None:
        server.version = "1.1"

    seen = under_load(server, release)
    assert seen.versions == ["1.0", "1.1"]
    assert seen.overlap_ms < NOISE
    assert [(stream.version, stream.ending) for stream in seen.streams] == [("1.0", "ended"), ("1.1", "open")]
    assert seen.cut == []


def test_a_service_that_does_not_serve_before_is_no_service_to_test(server: Server) -> None:
    server.status = 503
    with pytest.raises(AssertionError, match="answered 503"), Load(f"127.0.0.1:{server.port}", "shop.test", within=1):
        pytest.fail("the block is not entered")


def request(at: float, *, took: float = 0.0, version: str = "1.0", error: str = "") -> Request:
    return Request(due=at, sent=at, done=at + took, status=200, version=version, error=error)


def test_a_request_sent_again_on_a_closed_connection_is_counted() -> None:
    again = request(0)
    again.retried = True
    seen = Seen(requests=[again, request(1)], slow=[], streams=[])
    assert seen.retried == 1
    assert seen.failed == []


def test_versions_that_take_turns_overlap_for_as_long_as_they_do() -> None:
    requests = [request(second, version=version) for second, version in enumerate(["a", "a", "b", "a", "b", "b"])]
    assert Seen(requests=requests, slow=[], streams=[]).overlap_ms == 1000


def test_rows_of_failures_are_summed() -> None:
    requests = [request(second, error="x" if second in (1, 2, 5) else "") for second in range(8)]
    assert Seen(requests=requests, slow=[], streams=[]).without_service_ms == 3000


def test_a_stream_that_breaks_off_is_cut() -> None:
    streams = [Stream(opened=0, ending="ended"), Stream(opened=1, ending="cut"), Stream(opened=2, ending="open")]
    assert Seen(requests=[], slow=[], streams=streams).cut == [streams[1]]
