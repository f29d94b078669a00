from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest
from backend.metrics import Metrics
from backend.middleware import Frame
from backend.readiness import Lifecycle
from backend_support import Process
from starlette.types import Message, Receive, Scope, Send


def test_every_answer_carries_a_request_id_and_headers_that_close_doors(server: Process) -> None:
    for path in ("/api/health", "/nowhere"):
        headers = server.call("GET", path).headers

        assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


@pytest.mark.parametrize("given", ["a" * 65, "a b", "<x>", "é"])
def test_a_request_id_that_could_harm_a_log_is_replaced(server: Process, given: str) -> None:
    answer = server.call("GET", "/api/health", headers={"X-Request-ID": given})

    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def log_entry(server: Process, request_id: str) -> dict[str, Any]:
    """The access log line of a request; it is written after the answer, so it may take a moment."""
    for _ in range(200):
        for line in server.log.splitlines(keepends=True):
            if line.endswith("\n") and f'"request_id":"{request_id}"' in line:
                return dict(json.loads(line))
        time.sleep(0.01)
    raise AssertionError(f"request {request_id} is not in the log")


def test_the_access_log_tells_the_path_but_neither_query_nor_token(server: Process) -> None:
    answer = server.call("GET", "/api/documents?limit=1&key=hidden-in-query")

    line = log_entry(server, answer.headers["x-request-id"])
    assert (line["level"], line["logger"], line["message"]) == ("http", "backend.access", "GET /api/documents 200")
    assert line["client"] == "127.0.0.1"
    assert line["duration_ms"] > 0
    assert "hidden-in-query" not in server.log
    assert server.token not in server.log


def ask(app: Frame) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": [], "client": None}
    asyncio.run(app(scope, receive, send))
    return sent


def frame(app: object, *, draining: bool = False) -> Frame:
    return Frame(app, metrics=Metrics("1"), lifecycle=Lifecycle(draining))  # type: ignore[arg-type]


def test_a_handler_that_crashes_becomes_an_answer_that_tells_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async def crash(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("hidden detail")

    start, body = ask(frame(crash))

    assert start["status"] == 500
    error = json.loads(body["body"])["error"]
    assert error["code"] == "internal"
    assert "hidden detail" not in body["body"].decode()
    record = caplog.records[-1]
    assert record.exc_info is not None
    assert getattr(record, "fields", None) == {"request_id": error["request_id"]}


def test_half_an_answer_is_not_made_whole_with_an_error() -> None:
    async def crash(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        ask(frame(crash))


@pytest.mark.parametrize("draining", [False, True])
def test_only_a_draining_process_asks_its_clients_to_leave(draining: bool) -> None:
    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    headers = dict(ask(frame(answer, draining=draining))[0]["headers"])

    assert headers.get(b"connection") == (b"close" if draining else None)
