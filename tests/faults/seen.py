"""What the users of a service saw while something was done to it: every request, and the figures made of them.

Times are seconds of the machine's monotonic clock, so that a test can compare them with moments of its own.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Literal

import msgspec

Ending = Literal["open", "ended", "cut", "refused"]
"""Of a stream: open to the last, ended as HTTP ends one, broken off in the middle, or never begun."""


class Request(msgspec.Struct, kw_only=True):
    """One request, answered or not."""

    due: float
    """When the schedule wanted it sent, however busy anybody was."""
    sent: float
    done: float
    status: int = 0
    version: str = ""
    """Which version of the application answered, by its own word."""
    error: str = ""
    """Why this is no good answer; empty for a good one."""
    retried: bool = False
    """It met a kept-open connection that the server had closed, and was sent again, as every HTTP client does."""

    @property
    def good(self) -> bool:
        """Whether a user got what was asked for."""
        return not self.error


class Stream(msgspec.Struct, kw_only=True):
    """One stream of server-sent events."""

    opened: float
    done: float = 0.0
    events: int = 0
    version: str = ""
    ending: Ending = "open"
    error: str = ""


class Span(msgspec.Struct, frozen=True):
    """From the first to the last answer of one version."""

    version: str
    first: float
    last: float


class Seen(msgspec.Struct, kw_only=True):
    """All that was seen: requests in the order in which they were due, streams in that in which they were opened."""

    requests: list[Request]
    slow: list[Request]
    """Requests that take seconds, one after the other; one still open at the end is left out."""
    streams: list[Stream]

    @property
    def failed(self) -> list[Request]:
        """Requests of the steady load without a good answer."""
        return [request for request in self.requests if not request.good]

    @property
    def slow_failed(self) -> list[Request]:
        """Slow requests without a good answer."""
        return [request for request in self.slow if not request.good]

    @property
    def retried(self) -> int:
        """How many requests were sent a second time."""
        return sum(request.retried for request in self.requests)

    @property
    def cut(self) -> list[Stream]:
        """Streams that broke off or never began. One that a stopped release has ended properly is not among them."""
        return [stream for stream in self.streams if stream.ending in ("cut", "refused")]

    @property
    def gap_ms(self) -> float:
        """The longest time between two good answers; to the end of the last request, where no good one came after."""
        moments = sorted(request.done for request in self.requests if request.good)
        if not moments:
            return float("inf")
        moments.append(max(request.done for request in self.requests))
        return 1000 * max(after - before for before, after in itertools.pairwise(moments))

    @property
    def without_service_ms(self) -> float:
        """How long nobody was served: from the first of each row of failed requests to the next good one, summed."""
        total = 0.0
        for good, row in itertools.groupby(self.requests, key=lambda request: request.good):
            if good:
                continue
            failed = list(row)
            after = next((request.due for request in self.requests if request.due > failed[-1].due), failed[-1].done)
            total += after - failed[0].due
        return 1000 * total

    @property
    def longest_ms(self) -> float:
        """The longest that a good answer took, counted from when it was due."""
        return 1000 * max((request.done - request.due for request in self.requests if request.good), default=0.0)

    @property
    def late_ms(self) -> float:
        """The longest that the load itself was behind its schedule: what a gap may owe to a busy machine."""
        return 1000 * max((request.sent - request.due for request in self.requests), default=0.0)

    @property
    def spans(self) -> list[Span]:
        """The versions that gave good answers, in the order in which their first one came."""
        moments: dict[str, list[float]] = {}
        for request in sorted(self.requests, key=lambda request: request.done):
            if request.good:
                moments.setdefault(request.version, []).append(request.done)
        return [Span(version, of_version[0], of_version[-1]) for version, of_version in moments.items()]

    @property
    def versions(self) -> list[str]:
        """The versions that gave good answers, in that order."""
        return [span.version for span in self.spans]

    @property
    def overlap_ms(self) -> float:
        """How long two versions answered side by side, at the most."""
        return 1000 * max((max(0.0, old.last - new.first) for old, new in itertools.pairwise(self.spans)), default=0.0)

    def undisturbed(self) -> Seen:
        """The same, or AssertionError: somebody was not served, or lost a stream before its release had drained."""
        assert self.failed == [], self
        assert self.slow_failed == [], self
        assert self.cut == [], self
        return self

    def disturbed(self, *, for_ms: float) -> Seen:
        """The same, or AssertionError: it was to take the service away, for no longer than this and not for ever."""
        assert 0 < self.without_service_ms <= for_ms, self
        assert self.requests[-1].good, self
        return self

    def __repr__(self) -> str:
        reasons = Counter(request.error for request in self.failed)
        streams = Counter(f"{stream.version or '-'} {stream.ending} {stream.error}".strip() for stream in self.streams)
        began = self.requests[0].due if self.requests else 0.0
        lines = [
            f"{len(self.requests)} requests, {len(self.failed)} failed, {self.retried} sent again",
            *(f"    {count} x {reason}" for reason, count in reasons.most_common(8)),
            f"    first {self.failed[0].due - began:.2f} s after the start, last {self.failed[-1].due - began:.2f} s"
            if self.failed
            else "",
            f"without service {self.without_service_ms:.0f} ms, longest gap {self.gap_ms:.0f} ms, "
            f"longest answer {self.longest_ms:.0f} ms, load late by {self.late_ms:.0f} ms",
            f"versions {' -> '.join(self.versions) or 'none'}, side by side for {self.overlap_ms:.0f} ms",
            f"slow requests: {len(self.slow)}, failed {[request.error for request in self.slow_failed]}",
            f"streams: {len(self.streams)}",
            *(f"    {count} x {what}" for what, count in streams.most_common(8)),
        ]
        return "\n".join(line for line in lines if line)
