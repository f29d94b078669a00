"""The registry as the lab's machine sees it: this machine's own, with what can become of a registry on top."""

from __future__ import annotations

import http.client
import http.server
import threading
from typing import Literal

Mode = Literal["serves", "away", "lies", "breaks off"]
"""It may answer nobody, give other bytes than a digest names, or go away in the middle of a blob."""

BEHIND = ("127.0.0.1", 5000)
HOP_BY_HOP = ("connection", "transfer-encoding", "server", "date")


class Registry:
    """Answers on a loopback port of this machine for as long as the `with` block lasts."""

    mode: Mode = "serves"

    def __enter__(self) -> Registry:
        front = self

        class Handler(_Handler):
            registry = front

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="registry")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def is_away(self) -> bool:
        """Whether it answers nobody, by now."""
        return self.mode == "away"

    @property
    def port(self) -> int:
        """The port."""
        return int(self._server.server_port)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Registry

    def do_GET(self) -> None:
        """Pass it on."""
        self._pass_on()

    def do_HEAD(self) -> None:
        """Pass it on."""
        self._pass_on()

    def _pass_on(self) -> None:
        self.close_connection = True
        if self.registry.mode == "away":
            return
        behind = http.client.HTTPConnection(*BEHIND, timeout=30)
        try:
            behind.putrequest(self.command, self.path, skip_host=True)
            # One by one: a client says Accept several times.
            for name, value in self.headers.items():
                behind.putheader(name, value)
            behind.endheaders()
            answer = behind.getresponse()
            self._answer(answer.status, answer.getheaders(), answer.read())
        finally:
            behind.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        if self.registry.mode == "lies" and "/manifests/" in self.path:
            body = body.replace(b"\n", b" ")
        if self.registry.mode == "breaks off" and "/blobs/" in self.path:
            body = body[: len(body) // 2]
            self.registry.mode = "away"
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        """Answer; what a client that is gone does not hear is no news."""
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""
