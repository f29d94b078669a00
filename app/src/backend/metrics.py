"""What /metrics tells, in a registry of its own."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """Requests by method, route template and status; how long they took (seconds); how many are being answered."""

    def __init__(self, version: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        labels = ("method", "route", "status")
        self._requests = Counter("http_requests", "Requests answered.", labels, registry=self._registry)
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Time from the request's head to the last byte of the answer.",
            ("method", "route"),
            registry=self._registry,
        )
        self.in_progress: Final = Gauge(
            "http_requests_in_progress", "Requests being answered now.", registry=self._registry
        )
        self.draining: Final = Gauge("backend_draining", "1 while about to stop.", registry=self._registry)
        Gauge("backend_build_info", "Always 1.", ("version",), registry=self._registry).labels(version).set(1)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request; methods no route knows share one label, so that clients cannot make more."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def render(self) -> bytes:
        """The text exposition."""
        return generate_latest(self._registry)
