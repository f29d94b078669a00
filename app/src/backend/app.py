"""The HTTP application: routes, and how a request becomes an answer or a refusal."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from backend import documents, readiness, tokens
from backend.answers import JSON, RefusalError, refused
from backend.database import Database
from backend.errors import DatabaseUnavailableError
from backend.metrics import CONTENT_TYPE, Metrics
from backend.middleware import Frame
from backend.readiness import Lifecycle

MAX_BODY: Final = 1024 * 1024
"""Bytes that a request's body may have."""
_MAX_DIGITS: Final = len(str(documents.MAX_ID))

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Backend:
    """What the handlers work with."""

    database: Database
    jwt_secrets: tuple[str, ...]
    """Signed with any of them a token is valid."""
    environment: str
    version: str
    head: str
    lifecycle: Lifecycle
    metrics: Metrics

    async def health(self, _request: Request) -> Response:
        """The process answers. Never asks the database: a restart would not bring it back."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return JSON({"status": "ok", "timestamp": now, "version": self.version})

    async def ready(self, request: Request) -> Response:
        """Whether traffic may come; 503 says under `details` what keeps it away."""
        schema = None if self.lifecycle.draining else await readiness.look(self.database)
        problems = readiness.problems(schema, self.lifecycle, self.head)
        if problems:
            message = "; ".join(problems.values()).capitalize() + "."
            return refused(request, RefusalError(503, "not_ready", message, details=problems))
        return JSON({"status": "ready", "version": self.version, "revision": self.head})

    async def status(self, request: Request) -> Response:
        """What an operator asks after a deploy; Bearer."""
        self.subject(request)
        schema = await readiness.look(self.database)
        problems = readiness.problems(schema, self.lifecycle, self.head)
        return JSON(
            {
                "status": "not_ready" if problems else "ready",
                "problems": problems,
                "version": self.version,
                "environment": self.environment,
                "database": "unreachable" if schema is None else "connected",
                "revision": None if schema is None else schema.current,
                "head": self.head,
            }
        )

    async def show_metrics(self, _request: Request) -> Response:
        """For Prometheus; keep it off the public entry."""
        self.metrics.draining.set(self.lifecycle.draining)
        return Response(self.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def list_documents(self, request: Request) -> Response:
        """One page, oldest first; `next` is the path of the following one, or null."""
        self.subject(request)
        limit = _number(request, "limit", default=20, low=1, high=documents.MAX_PAGE)
        after = _number(request, "after", default=0, low=0, high=documents.MAX_ID)
        found, following = await documents.page(self.database, after=after, limit=limit)
        further = None if following is None else f"{request.url.path}?limit={limit}&after={following}"
        return JSON({"documents": found, "next": further})

    async def create_document(self, request: Request) -> Response:
        """201 with the document and its Location."""
        author = self.subject(request)
        new = await _body(request, documents.NewDocument)
        document = await documents.create(self.database, new, author=author)
        return JSON(document, 201, {"Location": f"{request.url.path}/{document.id}"})

    async def read_document(self, request: Request) -> Response:
        """The document, or 404."""
        self.subject(request)
        given = request.path_params["document_id"]
        document_id = _decimal(given, high=documents.MAX_ID)
        document = None if document_id is None else await documents.read(self.database, document_id)
        if document is None:
            raise RefusalError(404, "not_found", f"There is no document {given[:_MAX_DIGITS]}.")
        return JSON(document)

    def subject(self, request: Request) -> str:
        """Who the Bearer token speaks for; refuses with 401."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise RefusalError(
                401, "unauthenticated", "A Bearer token is needed here.", headers={"WWW-Authenticate": "Bearer"}
            )
        try:
            return tokens.subject_of(token.strip(), *self.jwt_secrets)
        except tokens.InvalidTokenError as error:
            raise RefusalError(
                401,
                "unauthenticated",
                f"{str(error).capitalize()}.",
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            ) from None


def create_app(backend: Backend) -> ASGIApp:
    """The application that serves `backend`, and closes its database when the server ends."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await backend.database.close()

    app = Starlette(
        routes=[
            Route("/health", backend.health, methods=["GET"]),
            Route("/api/health", backend.health, methods=["GET"]),
            Route("/api/ready", backend.ready, methods=["GET"]),
            Route("/api/status", backend.status, methods=["GET"]),
            Route("/metrics", backend.show_metrics, methods=["GET"]),
            Route(
                "/api/documents",
                _by_method(GET=backend.list_documents, POST=backend.create_document),
                methods=["GET", "POST"],
            ),
            Route("/api/documents/{document_id}", backend.read_document, methods=["GET"]),
        ],
        exception_handlers={
            RefusalError: _refusal,
            HTTPException: _http_exception,
            ClientDisconnect: _client_left,
            DatabaseUnavailableError: _database_unavailable,
        },
        middleware=[Middleware(Frame, metrics=backend.metrics, lifecycle=backend.lifecycle)],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def _by_method(**handlers: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """One route for a path with several methods, so that 405 names all of them."""

    async def dispatch(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return dispatch


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)  # noqa: S101 - narrows the type; Starlette chose the handler by it
    return refused(request, error)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    return refused(request, RefusalError(error.status_code, code, f"{error.detail}.", headers=error.headers))


async def _client_left(request: Request, _error: Exception) -> Response:
    # No one reads this any more; it gives the access log and the metrics a status that blames no one here.
    return refused(request, RefusalError(400, "incomplete", "The connection ended before the body did."))


async def _database_unavailable(request: Request, error: Exception) -> Response:
    _logger.error("%s", error, extra={"fields": {"request_id": request.scope["request_id"]}})
    message = "The database does not answer; try again later."
    return refused(request, RefusalError(503, "database_unavailable", message, headers={"Retry-After": "5"}))


def _number(request: Request, name: str, *, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    number = _decimal(text, high=high)
    if number is not None and number >= low:
        return number
    raise RefusalError(422, "invalid", f"{name} must be a whole number from {low} to {high}.")


def _decimal(text: str, *, high: int) -> int | None:
    """The number, or None; the length is looked at first, because Python refuses to convert thousands of digits."""
    if text.isascii() and text.isdecimal() and len(text) <= len(str(high)) and int(text) <= high:
        return int(text)
    return None


async def _body(request: Request, kind: type[_T]) -> _T:
    """The decoded body; refuses with 413, 415, 400 (not JSON) or 422 (JSON of another shape)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusalError(415, "unsupported_media_type", "The body must be application/json.")
    too_large = RefusalError(413, "too_large", f"The body may have {MAX_BODY} bytes at most.")
    declared = request.headers.get("content-length", "0")
    if len(declared) > len(str(MAX_BODY)) or int(declared) > MAX_BODY:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise too_large
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise RefusalError(422, "invalid", f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusalError(400, "not_json", f"The body is not JSON: {error}.") from None
