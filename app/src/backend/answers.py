"""Answers in JSON, errors all of one shape: `{"error": {"code", "message", "request_id", "details"?}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response


class RefusalError(Exception):
    """A request that cannot be served, as the client gets to see it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
        self.details = details


class JSON(Response):
    """A body that msgspec can encode."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return msgspec.json.encode(content)


def refused(request: Request, refusal: RefusalError) -> JSON:
    """The answer that a refusal becomes."""
    error: dict[str, object] = {
        "code": refusal.code,
        "message": refusal.message,
        "request_id": request.scope.get("request_id"),
    }
    if refusal.details:
        error["details"] = refusal.details
    return JSON({"error": error}, refusal.status, refusal.headers)
