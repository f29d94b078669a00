"""What every answer has in common: a request id, security headers, metrics, an access log line, and draining."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.answers import RefusalError, refused
from backend.logs import HTTP
from backend.metrics import Metrics
from backend.readiness import Lifecycle

_access: Final = logging.getLogger("backend.access")
_logger: Final = logging.getLogger(__name__)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
DISCARD_BYTES: Final = 16 * 1024 * 1024
DISCARD_SECONDS: Final = 10
"""How much of a refused body is read, and for how long, before the connection is cut after all."""
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _has_body(scope: Scope) -> bool:
    """Whether a body is on its way; a client that says `Expect` waits for leave to send it."""
    headers = Headers(scope=scope)
    return "expect" not in headers and (headers.get("content-length", "0") != "0" or "transfer-encoding" in headers)


class Frame:
    """Wraps every request, and answers for those that crash.

    It belongs inside Starlette's ServerErrorMiddleware, which would answer a crash first, in plain text, and raise it
    again for the server to log a second time and to cut the connection.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self.app = app
        self.metrics = metrics
        self.lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything but HTTP is passed through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        scope["request_id"] = request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        started = time.perf_counter()
        status = 0

        unread = _has_body(scope)

        async def take() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= HTTPStatus.BAD_REQUEST:
                    await self._discard(take, lambda: unread)
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if self.lifecycle.draining:
                    # The client opens its next connection elsewhere, instead of meeting one that we are closing.
                    headers["Connection"] = "close"
            await send(message)

        self.metrics.in_progress.inc()
        try:
            await self.app(scope, take, finish)
        except Exception:
            _logger.exception("the request failed", extra={"fields": {"request_id": request_id}})
            if status:
                raise  # half an answer is out: only cutting the connection tells the client so
            failure = RefusalError(500, "internal", "Something went wrong here; the log has it under this request id.")
            await refused(Request(scope), failure)(scope, take, finish)
        finally:
            self.metrics.in_progress.dec()
            self._record(scope, status, time.perf_counter() - started)

    @staticmethod
    async def _discard(take: Receive, unread: Callable[[], bool]) -> None:
        """Read what is left of a refused body: closing with it unread resets the connection, and the answer is lost."""
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while unread() and size <= DISCARD_BYTES:
                    size += len((await take()).get("body", b""))

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self.metrics.observe(scope["method"], route, status, seconds)
        if not _access.isEnabledFor(HTTP):
            return
        # The path as it came, still %-encoded, and without the query: people put secrets there.
        path = scope["raw_path"].split(b"?", 1)[0].decode("ascii", "backslashreplace")
        client = scope.get("client")
        fields = {
            "method": scope["method"],
            "path": path,
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
            "client": client[0] if client else None,
            "request_id": scope["request_id"],
        }
        _access.log(HTTP, "%s %s %d", scope["method"], path, status, extra={"fields": fields})
