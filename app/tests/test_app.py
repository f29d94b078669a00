from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from backend.app import MAX_BODY
from backend.tokens import mint
from backend.version import version
from backend_support import SECRET, Cluster, Process, run_migrations, write_config

Start = Callable[..., Process]


@pytest.mark.parametrize("path", ["/health", "/api/health"])
def test_health_tells_status_time_and_version_to_anyone(server: Process, path: str) -> None:
    answer = server.call("GET", path, token=None)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json.keys() == {"status", "timestamp", "version"}
    assert (answer.json["status"], answer.json["version"]) == ("ok", version())
    assert datetime.fromisoformat(answer.json["timestamp"]).tzinfo is not None


def test_the_version_is_the_one_that_the_image_was_built_with(start: Start) -> None:
    assert start(BACKEND_VERSION="0.1.0-build.7").call("GET", "/api/health").json["version"] == "0.1.0-build.7"


def test_ready_on_a_migrated_database(server: Process) -> None:
    answer = server.call("GET", "/api/ready", token=None)

    assert (answer.status, answer.json) == (200, {"status": "ready", "version": version(), "revision": "0002"})


def test_not_ready_before_the_database_is_migrated_and_ready_afterwards(database_url: str, start: Start) -> None:
    process = start(database_url)

    answer = process.call("GET", "/api/ready")
    assert (answer.status, answer.error) == (503, "not_ready")
    assert answer.json["error"]["details"] == {"schema": "the schema is empty and this release needs revision 0002"}
    assert process.call("GET", "/api/documents").status == 503
    assert process.call("GET", "/api/health").status == 200

    run_migrations(database_url)
    assert process.call("GET", "/api/ready").status == 200


def test_a_database_that_goes_away_takes_readiness_but_not_health(cluster: Cluster, start: Start) -> None:
    url = cluster.new_database()
    run_migrations(url)
    process = start(url)
    token = process.call("GET", "/api/status").json
    assert (token["status"], token["database"], token["revision"]) == ("ready", "connected", "0002")

    cluster.execute(f"DROP DATABASE {url.rsplit('/', 1)[1]} WITH (FORCE)")

    answer = process.call("GET", "/api/ready")
    assert (answer.status, answer.json["error"]["details"]) == (503, {"database": "the database does not answer"})
    assert process.call("GET", "/api/health").status == 200
    status = process.call("GET", "/api/status")
    assert (status.status, status.json["status"], status.json["database"]) == (200, "not_ready", "unreachable")
    created = process.call("POST", "/api/documents", {"title": "lost"})
    assert (created.status, created.error, created.headers["retry-after"]) == (503, "database_unavailable", "5")
    assert "does not exist" in process.log
    assert "does not exist" not in created.json["error"]["message"]


def test_a_handler_that_crashes_is_answered_and_logged_once_and_keeps_the_connection(
    cluster: Cluster, start: Start
) -> None:
    url = cluster.new_database()
    run_migrations(url)
    process = start(url)
    cluster.execute("ALTER TABLE documents DROP COLUMN content", url.rsplit("/", 1)[1])
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=20)
    headers = {"Authorization": f"Bearer {process.token}", "X-Request-ID": "crash.1"}

    for _ in range(2):  # the second one on the same connection: it was not cut
        connection.request("GET", "/api/documents/1", headers=headers)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert (answer.status, answer.headers["content-type"]) == (500, "application/json")
        assert body["error"]["code"] == "internal"
        assert body["error"]["request_id"] == answer.headers["x-request-id"] == "crash.1"
        assert "column" not in body["error"]["message"]
        assert connection.sock is not None
    connection.close()

    errors = [line for line in map(json.loads, process.log.splitlines()) if line["level"] == "error"]
    assert [(line["message"], line["request_id"]) for line in errors] == [("the request failed", "crash.1")] * 2


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/status"), ("GET", "/api/documents"), ("POST", "/api/documents"), ("GET", "/api/documents/1")],
)
def test_what_is_not_public_needs_a_bearer_token(server: Process, method: str, path: str) -> None:
    answer = server.call(method, path, token=None)
    assert (answer.status, answer.error, answer.headers["www-authenticate"]) == (401, "unauthenticated", "Bearer")

    for token, message in (
        (mint("x" * 32, subject="x", ttl=60), "The token is not valid."),
        (mint(SECRET, subject="x", ttl=-60), "The token has expired."),
    ):
        answer = server.call(method, path, token=token)
        assert (answer.status, answer.json["error"]["message"]) == (401, message)
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_after_a_rotation_the_tokens_of_yesterday_count_too(tmp_path: Path) -> None:
    url, new = f"sqlite:///{tmp_path}/backend.db", "n" * 32
    run_migrations(url)
    auth = {"jwtSecret": new, "previousJwtSecret": SECRET}
    with Process(write_config(tmp_path, url, auth=auth)) as process:
        for token in (process.token, mint(new, subject="x", ttl=60)):
            assert process.call("GET", "/api/status", token=token).status == 200
        assert process.call("GET", "/api/status", token=mint("x" * 32, subject="x", ttl=60)).status == 401


def test_status_tells_an_operator_what_runs(server: Process) -> None:
    assert server.call("GET", "/api/status").json == {
        "status": "ready",
        "problems": {},
        "version": version(),
        "environment": "test",
        "database": "connected",
        "revision": "0002",
        "head": "0002",
    }


def test_a_document_is_created_and_read_back(server: Process) -> None:
    created = server.call("POST", "/api/documents", {"title": "Über uns", "content": "zeile\n𝄞"})

    assert created.status == 201
    assert created.headers["location"] == f"/api/documents/{created.json['id']}"
    assert (created.json["title"], created.json["created_by"]) == ("Über uns", "tester")
    assert datetime.fromisoformat(created.json["created_at"]).tzinfo is not None
    read = server.call("GET", created.headers["location"])
    assert (read.status, read.json) == (200, created.json)


def test_a_list_is_walked_page_by_page_without_missing_or_repeating_one(server: Process) -> None:
    made = [server.call("POST", "/api/documents", {"title": f"page {n}"}).json["id"] for n in range(7)]
    path: str | None = f"/api/documents?limit=3&after={made[0] - 1}"
    seen: list[int] = []
    pages = 0

    while path is not None:
        answer = server.call("GET", path)
        assert answer.status == 200
        seen += [document["id"] for document in answer.json["documents"]]
        path = answer.json["next"]
        pages += 1

    assert seen == made
    assert pages == 3


def test_a_list_holds_what_tells_documents_apart_but_not_their_contents(server: Process) -> None:
    made = server.call("POST", "/api/documents", {"title": "large", "content": "x" * 500_000}).json

    answer = server.call("GET", f"/api/documents?after={made['id'] - 1}")

    del made["content"]
    assert answer.json == {"documents": [made], "next": None}


def test_the_end_of_a_list_that_fills_its_last_page_is_told(server: Process) -> None:
    made = [server.call("POST", "/api/documents", {"title": "last"}).json["id"] for _ in range(2)]

    assert server.call("GET", f"/api/documents?limit=2&after={made[0] - 1}").json["next"] is None
    assert server.call("GET", f"/api/documents?after={2**63 - 1}").json == {"documents": [], "next": None}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "limit=-1", "limit=%C2%B2", "after=-1", f"after={2**63}", "limit="]
)
def test_a_page_that_cannot_be_is_refused(server: Process, query: str) -> None:
    answer = server.call("GET", f"/api/documents?{query}")

    assert (answer.status, answer.error) == (422, "invalid")
    assert "must be a whole number from" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "error", "message"),
    [
        ("{", 400, "not_json", "The body is not JSON"),
        ("", 400, "not_json", "The body is not JSON"),
        (b'{"title": "\xff"}', 400, "not_json", "The body is not JSON"),
        ('{"title": "\\ud800"}', 400, "not_json", "The body is not JSON"),
        ("[]", 422, "invalid", "Expected `object`"),
        ("{}", 422, "invalid", "missing required field `title`"),
        ('{"title": ""}', 422, "invalid", "`$.title`"),
        (json.dumps({"title": "x" * 201}), 422, "invalid", "`$.title`"),
        ('{"title": "a\\u0000b"}', 422, "invalid", "`$.title`"),
        ('{"title": "a", "content": "\\u0000"}', 422, "invalid", "`$.content`"),
        ('{"title": 1}', 422, "invalid", "Expected `str`"),
        ('{"title": "a", "owner": "b"}', 422, "invalid", "unknown field `owner`"),
        ('{"title": "a", "content": ' + "[" * 100_000, 422, "invalid", "`$.content`"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_body_that_cannot_be_a_document_is_refused(
    server: Process, body: str | bytes, status: int, error: str, message: str
) -> None:
    answer = server.call("POST", "/api/documents", body)

    assert (answer.status, answer.error) == (status, error)
    assert message in answer.json["error"]["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_of_another_type_is_refused(server: Process, content_type: str) -> None:
    answer = server.call("POST", "/api/documents", '{"title": "a"}', headers={"Content-Type": content_type})

    assert (answer.status, answer.error) == (415, "unsupported_media_type")


def test_a_charset_behind_the_type_is_fine(server: Process) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}

    assert server.call("POST", "/api/documents", '{"title": "a"}', headers=headers).status == 201


def test_the_largest_body_is_taken_and_one_byte_more_is_refused(server: Process) -> None:
    frame = len(json.dumps({"title": "a", "content": ""}))

    assert server.call("POST", "/api/documents", {"title": "a", "content": "x" * (MAX_BODY - frame)}).status == 201
    answer = server.call("POST", "/api/documents", {"title": "a", "content": "x" * (MAX_BODY - frame + 1)})
    assert (answer.status, answer.error) == (413, "too_large")


def test_a_client_that_reads_only_after_it_has_sent_everything_still_gets_its_refusal(server: Process) -> None:
    body = "x" * (8 * 1024 * 1024)

    assert server.call("POST", "/api/documents", body).status == 413
    assert server.call("POST", "/api/documents", body, token=None).status == 401
    assert server.call("POST", "/nowhere", body).status == 404


def test_a_client_that_asks_first_is_refused_before_it_sends(server: Process) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        head = f"POST /api/documents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        head += f"Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_tell_its_length_is_bounded_too(server: Process) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        head = f"POST /api/documents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(MAX_BODY // 65536 + 2):
            client.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_in_the_middle_of_a_body_is_no_error_of_the_server(start: Start) -> None:
    process = start(LOG_LEVEL="http")
    with socket.create_connection(("127.0.0.1", process.port), 10) as client:
        head = f"POST /api/documents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {process.token}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        time.sleep(0.2)

    deadline = time.monotonic() + 10
    while "POST /api/documents" not in process.log and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "POST /api/documents 400" in process.log
    assert '"level":"error"' not in process.log


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/documents/",
        "/api/documents/x",
        "/api/documents/0",
        "/api/documents/-1",
        "/api/documents/%C2%B2",
        f"/api/documents/{2**63}",
        "/api/documents/" + "9" * 5000,
    ],
    ids=lambda path: path[:40],
)
def test_what_does_not_exist_is_answered_in_the_shape_of_every_error(server: Process, path: str) -> None:
    answer = server.call("GET", path, headers={"X-Request-ID": "my-request.1"})

    assert answer.status == 404
    assert answer.json["error"].keys() == {"code", "message", "request_id"}
    assert answer.json["error"]["code"] == "not_found"
    assert answer.json["error"]["request_id"] == answer.headers["x-request-id"] == "my-request.1"
    assert len(answer.json["error"]["message"]) < 50


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/api/health", {"GET", "HEAD"}),
        ("DELETE", "/api/documents", {"GET", "HEAD", "POST"}),
        ("PUT", "/api/documents/1", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_a_path_does_not_take_is_refused_with_those_it_takes(
    server: Process, method: str, path: str, allowed: set[str]
) -> None:
    answer = server.call(method, path)

    assert (answer.status, answer.error) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed


def test_head_is_answered_without_a_body(server: Process) -> None:
    answer = server.call("HEAD", "/api/documents")

    assert (answer.status, answer.body) == (200, b"")


def test_metrics_count_what_was_asked(server: Process) -> None:
    server.call("GET", "/api/documents/123456789")
    server.call("GET", "/made/up")

    answer = server.call("GET", "/metrics", token=None)

    assert answer.headers["content-type"].startswith("text/plain; version=")
    text = answer.body.decode()
    assert 'http_requests_total{method="GET",route="/api/documents/{document_id}",status="404"}' in text
    assert 'http_requests_total{method="GET",route="unmatched",status="404"}' in text
    assert "/made/up" not in text
    assert "backend_draining 0.0" in text
