"""The server's life: start, serve, drain, stop.

The first SIGTERM (or SIGINT) only marks the process as draining: it goes on accepting and answering, readiness turns
503, and every answer says `Connection: close`, so that the proxy in front and its keep-alive clients leave by
themselves. After `drain_seconds` it stops accepting, lets running requests end, and exits 0. A second signal ends it
at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from backend.errors import BackendError
from backend.readiness import Lifecycle

KEEP_ALIVE: Final = 75
"""Seconds that an idle connection stays open: longer than proxies keep theirs, so that the proxy closes first."""
GRACE: Final = 10
"""Seconds that running requests get to end once the server has stopped accepting."""

_logger = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """A uvicorn server whose first signal starts a drain of `drain_seconds`."""

    def __init__(self, config: uvicorn.Config, *, lifecycle: Lifecycle, drain_seconds: float) -> None:
        super().__init__(config)
        self.lifecycle = lifecycle
        self.drain_seconds = drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop, for the signal handler; then start as usual."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Called for every signal. uvicorn's own would raise it again at the end and turn a clean stop into 143."""
        if self._loop is None or self.lifecycle.draining:
            self.should_exit = self.force_exit = True
            return
        self.lifecycle.draining = True
        _logger.info("draining for %g seconds", self.drain_seconds)
        self._loop.call_soon_threadsafe(self._loop.call_later, self.drain_seconds, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def serve(app: ASGIApp, *, host: str, port: int, lifecycle: Lifecycle, drain_seconds: float) -> int:
    """Serve until a signal and return the exit code; raises BackendError when the port cannot be had."""
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    server = DrainingServer(config, lifecycle=lifecycle, drain_seconds=drain_seconds)
    _logger.info("listening on %s port %d", host, port)
    server.run(sockets=[listener])
    _logger.info("stopped")
    return 1 if server.force_exit else 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise BackendError(
            f"Port {port} of {host} cannot be listened on: {error.strerror}.",
            "Free it, or set BACKEND_HOST and BACKEND_PORT to another.",
        ) from None
    return listener
