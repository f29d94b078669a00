from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from backend_support import Cluster, Process, run_migrations, write_config

REQUESTS = 10_000
CLIENTS = 8
DRAINED = 500
"""Answers after the signal until new connections go to the new process."""

Start = Callable[..., Process]


class Client:
    """A keep-alive client that counts as lost whatever it sent and got no whole answer for; it never tries again.

    It holds one connection for as long as the server lets it, and opens the next where `target` says.
    """

    def __init__(self, target: Callable[[], Process]) -> None:
        self.target = target
        self.statuses: Counter[str] = Counter()
        self.served: Counter[int] = Counter()
        self.lost: list[str] = []
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._port = 0

    async def ask(self, number: int) -> None:
        try:
            await self._ask(number)
        except (OSError, EOFError, ValueError) as error:
            self.lost.append(f"request {number}: {error!r}")
            await self.leave()

    async def _ask(self, number: int) -> None:
        if self._reader is None or self._writer is None:
            process = self.target()
            self._port = process.port
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        if number % 20:
            request = b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n"
        else:
            body = b'{"title": "%d"}' % number
            request = b"POST /api/documents HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            request += f"Authorization: Bearer {self.target().token}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            request += body
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        await self._reader.readexactly(length)
        self.statuses[head.split(b" ", 2)[1].decode()] += 1
        self.served[self._port] += 1
        if b"connection: close" in head:
            await self.leave()

    async def leave(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def test_a_stop_under_load_loses_none_of_10_000_requests_of_keep_alive_clients(start: Start) -> None:
    """An old and a new process on one database, as during a switch.

    While the old one drains, new connections go on coming to it for a while, as they do until a proxy has noticed;
    then they go to the new one. How long is counted in answers, so that a slow machine drains under load as well.
    """
    old = start(BACKEND_DRAIN_SECONDS="3")
    new = start(old_database(old), BACKEND_DRAIN_SECONDS="0")
    signalled: list[int] = []

    def answered() -> int:
        return sum(client.statuses.total() for client in clients)

    def target() -> Process:
        return new if signalled and answered() - signalled[0] >= DRAINED else old

    clients = [Client(target) for _ in range(CLIENTS)]
    numbers = iter(range(REQUESTS))

    async def work(client: Client) -> None:
        for number in numbers:
            if number == REQUESTS // 5:
                old.terminate()
                signalled.append(answered())
            await client.ask(number)
        await client.leave()

    async def run() -> None:
        await asyncio.gather(*(work(client) for client in clients))

    asyncio.run(run())

    statuses = sum((client.statuses for client in clients), Counter[str]())
    served = sum((client.served for client in clients), Counter[int]())
    assert [lost for client in clients for lost in client.lost] == []
    assert statuses == {"200": REQUESTS - REQUESTS // 20, "201": REQUESTS // 20}
    # More than were answered before the signal: the drain itself was under load.
    assert served[old.port] >= REQUESTS // 5 + DRAINED - CLIENTS
    assert served[new.port] > 200
    assert old.wait() == 0
    assert count_documents(new) == REQUESTS // 20


def old_database(process: Process) -> str:
    return f"sqlite:///{Path(process.environ['SEMIONT_ROOT'])}/backend.db"


def count_documents(process: Process) -> int:
    total, path = 0, "/api/documents?limit=100"
    while path:
        page = process.call("GET", path).json
        total += len(page["documents"])
        path = page["next"]
    return total


def test_a_draining_process_still_answers_but_is_not_ready_and_says_goodbye(start: Start) -> None:
    process = start(BACKEND_DRAIN_SECONDS="2")
    assert "connection" not in process.call("GET", "/api/health", headers={"Connection": "keep-alive"}).headers

    process.terminate()
    time.sleep(0.2)

    health = process.call("GET", "/api/health", headers={"Connection": "keep-alive"})
    assert (health.status, health.headers["connection"]) == (200, "close")
    ready = process.call("GET", "/api/ready")
    assert (ready.status, ready.json["error"]["details"]) == (503, {"draining": "this process is about to stop"})
    assert "backend_draining 1.0" in process.call("GET", "/metrics").body.decode()
    assert process.wait() == 0
    assert '"message":"stopped"' in process.log


def test_a_draining_process_tells_its_status_even_when_the_database_is_gone(cluster: Cluster, start: Start) -> None:
    url = cluster.new_database()
    run_migrations(url)
    process = start(url, BACKEND_DRAIN_SECONDS="3")
    process.terminate()
    while "draining for 3 seconds" not in process.log:
        time.sleep(0.02)
    cluster.execute(f"DROP DATABASE {url.rsplit('/', 1)[1]} WITH (FORCE)")

    status = process.call("GET", "/api/status")

    assert (status.status, status.json["status"], status.json["database"]) == (200, "not_ready", "unreachable")
    assert status.json["problems"] == {"draining": "this process is about to stop"}
    assert process.wait() == 0


def test_a_request_that_has_begun_is_finished_after_the_drain(start: Start) -> None:
    process = start(BACKEND_DRAIN_SECONDS="0")
    body = b'{"title": "slow"}'
    with socket.create_connection(("127.0.0.1", process.port), 10) as client:
        head = f"POST /api/documents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {process.token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[:5])
        time.sleep(0.2)
        process.terminate()
        time.sleep(0.6)
        client.sendall(body[5:])
        answer = client.recv(4096)

    assert answer.startswith(b"HTTP/1.1 201 ")
    assert b"connection: close" in answer
    assert process.wait() == 0


def test_a_signal_while_it_still_waits_for_its_database_ends_it_by_a_handler_of_its_own(tmp_path: Path) -> None:
    # Without a handler it would end by the signal itself, and as PID 1 of a container not at all.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        process = Process(write_config(tmp_path, f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d"))
        process.launch()
        try:
            connection, _ = silent.accept()
            with connection:
                process.terminate()
                assert process.wait(timeout=3) == 143
        finally:
            process.kill()


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    process = start(BACKEND_DRAIN_SECONDS="60")
    process.call("GET", "/api/documents")

    process.terminate()
    time.sleep(0.2)
    process.terminate()

    assert process.wait(timeout=3) == 1


def test_a_port_that_is_taken_is_told(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(AssertionError, match="did not start") as caught:
            start(BACKEND_PORT=str(port))

    assert f"Port {port} of 127.0.0.1 cannot be listened on: Address already in use." in str(caught.value)
