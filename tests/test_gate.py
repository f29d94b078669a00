"""What counts as healthy, asked of a real HTTP server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from slipway.contract import Health
from slipway.gate import Answer, complaint, fetch, greeting

BODIES = {
    "/ready": (200, b'{"status": "ready", "version": "1.4.2", "deep": {"down": [1]}}'),
    "/starting": (503, b'{"status": "starting"}'),
    "/text": (200, b"OK"),
    "/empty": (204, b""),
    "/list": (200, b"[1]"),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/silent":
            self.server.hold.wait(5)  # type: ignore[attr-defined]  # put there by the fixture
            return
        status, body = BODIES[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name in the base class
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.hold = threading.Event()  # type: ignore[attr-defined]  # for the handler
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.hold.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def ask(port: int, path: str, version: str = "", **promise: Any) -> str:
    health = Health(path=path, **promise)
    return complaint(fetch("127.0.0.1", port, path, timeout=0.3), health, version)


def test_an_answer_as_promised_is_no_complaint(port: int) -> None:
    assert ask(port, "/ready") == ""
    assert ask(port, "/ready", json={"status": "ready"}) == ""
    assert ask(port, "/ready", json={"deep.down": [1]}) == ""
    assert ask(port, "/empty", status=204) == ""


def test_the_images_own_version_must_be_what_answers(port: int) -> None:
    health = Health(path="/ready", version="version")
    answer = fetch("127.0.0.1", port, "/ready", 1)
    assert complaint(answer, health, "1.4.2") == ""
    assert complaint(answer, health, "1.4.3") == "/ready says version is '1.4.2' instead of '1.4.3'"
    assert complaint(answer, health, "") == "", "an image without a version label promises none"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"equals": "ready"}, ""),
        ({"equals": "ok"}, "says status is 'ready' instead of 'ok'"),
        ({"one_of": ["ok", "ready"]}, ""),
        ({"one_of": ["ok", "warning"]}, "says status is 'ready' instead of one of 'ok', 'warning'"),
        ({"present": True}, ""),
        ({"present": False}, "says status is 'ready' instead of nothing"),
        ({"present": True, "one_of": ["ok"]}, "says status is 'ready' instead of one of 'ok'"),
    ],
)
def test_a_key_can_be_one_of_several_values_or_just_be_there(wanted: dict[str, Any], said: str, port: int) -> None:
    assert ask(port, "/ready", json={"status": wanted}).removeprefix("/ready ") == said


def test_a_key_that_has_to_be_there_and_is_not_is_told(port: int) -> None:
    assert ask(port, "/ready", json={"time": {"present": True}}) == "/ready says time is None instead of anything"
    assert ask(port, "/ready", json={"time": {"present": False}}) == ""
    assert ask(port, "/ready", json={"deep": {"equals": {"down": [1]}}}) == ""


@pytest.mark.parametrize(("found", "wanted"), [(b"true", 1), (b"1", True), (b"0", False)])
def test_true_is_not_one(found: bytes, wanted: object) -> None:
    said = complaint(Answer(200, b'{"up": ' + found + b"}"), Health(path="/", json={"up": wanted}), "")
    assert said.startswith("/ says up is")


@pytest.mark.parametrize("answer", [b"S", b"N"])
def test_a_postgresql_is_known_by_its_greeting(answer: bytes) -> None:
    with server(answer) as (port, heard):
        assert greeting(f"127.0.0.1:{port}", 1) == ""
    assert heard == [b"\0\0\0\x08\x04\xd2\x16\x2f"]


def test_another_program_is_no_postgresql() -> None:
    with server(b"HTTP/1.1 400 Bad Request\r\n") as (port, _):
        assert greeting(f"127.0.0.1:{port}", 1) == f"what answers at 127.0.0.1:{port} is no PostgreSQL"
    assert greeting(f"127.0.0.1:{port}", 1) == (
        f"no answer from the database at 127.0.0.1:{port}: [Errno 111] Connection refused"
    )


@contextmanager
def server(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Says `answer` to the one who comes first, and notes what it heard."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                heard.append(connection.recv(4096))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1], heard
        thread.join()


@pytest.mark.parametrize(
    ("path", "promise", "said"),
    [
        ("/starting", {}, '/starting answered 503 instead of 200: {"status": "starting"}'),
        ("/ready", {"status": 204}, "/ready answered 200 instead of 204"),
        ("/ready", {"json": {"status": "ok"}}, "/ready says status is 'ready' instead of 'ok'"),
        ("/ready", {"json": {"deep.up": 1}}, "/ready says deep.up is None instead of 1"),
        ("/ready", {"json": {"status.deeper": 1}}, "/ready says status.deeper is None instead of 1"),
        ("/list", {"json": {"status": "ok"}}, "/list says status is None instead of 'ok'"),
        ("/text", {"json": {"status": "ok"}}, "/text answered something that is not JSON: OK"),
        ("/empty", {}, "/empty answered 204 instead of 200: (empty)"),
        ("/silent", {}, "no answer from /silent: timed out"),
    ],
)
def test_a_broken_promise_is_told(path: str, promise: dict[str, Any], said: str, port: int) -> None:
    assert ask(port, path, **promise).startswith(said)


def test_nobody_on_the_port_is_told() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert ask(port, "/ready") == "no answer from /ready: [Errno 111] Connection refused"


@pytest.mark.parametrize("words", [b"", b"SSH-2.0-OpenSSH\r\n"])
def test_something_that_does_not_speak_http_is_told(words: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(words)

        thread = threading.Thread(target=serve)
        thread.start()
        assert ask(server.getsockname()[1], "/ready").startswith("no answer from /ready: ")
        thread.join()


def test_only_the_start_of_a_long_body_is_shown() -> None:
    said = complaint(Answer(500, b"x" * 10_000), Health(path="/"), "")
    assert len(said) < 300


def test_json_that_is_not_what_it_should_be_does_not_break_the_gate() -> None:
    for body in (b"\xff\xfe", b"null", b"5", b'"text"', json.dumps([{"status": "ok"}]).encode()):
        assert complaint(Answer(200, body), Health(path="/", json={"status": "ok"}), "")
