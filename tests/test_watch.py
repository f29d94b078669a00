"""What is watched while traffic moves, on real sockets and real files."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from slipway.network import established
from slipway.watch import AccessLog, Prober, Soak, drain, soak

TERMS = Soak(seconds=1, max_error_percent=10, min_errors=2)


def answered(log: Path, *statuses: int) -> None:
    with log.open("a") as out:
        out.writelines(f'{{"level":"info","msg":"handled request","status":{status}}}\n' for status in statuses)


# --- The access log ---------------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "shop.log"


def test_only_what_was_answered_from_now_on_counts(log: Path) -> None:
    answered(log, 500, 500, 500)
    access = AccessLog(log)
    answered(log, 200, 200)
    assert access.complaint(TERMS) == ""
    assert (access.answers, access.errors) == (2, 0)


def test_too_large_a_share_of_server_errors_is_a_complaint_with_its_figures(log: Path) -> None:
    access = AccessLog(log)
    answered(log, 200, 502, 404, 500)
    assert access.complaint(TERMS) == "2 of 4 answers (50 %) were server errors"


def test_a_single_error_says_nothing_and_neither_does_a_small_share(log: Path) -> None:
    access = AccessLog(log)
    answered(log, 500)
    assert access.complaint(TERMS) == ""
    answered(log, 500, *[200] * 30)
    assert access.complaint(TERMS) == ""


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(log: Path) -> None:
    access = AccessLog(log)
    with log.open("a") as out:
        out.write('{"status":5')
        out.flush()
        access.read()
        assert access.answers == 0
        out.write("00}\n")
        out.flush()
        access.read()
    assert (access.answers, access.errors) == (1, 1)


def test_a_log_that_was_rotated_or_is_not_there_yet_is_read_on(log: Path) -> None:
    access = AccessLog(log)
    access.read()
    answered(log, 200, 200, 200)
    access.read()
    log.unlink()
    answered(log, 500)
    access.read()
    assert (access.answers, access.errors) == (4, 1)


# --- Soak and drain ---------------------------------------------------------------------------------------------------


def test_a_soak_ends_with_the_first_complaint_and_without_one_when_its_time_is_over() -> None:
    complaints = iter(["", "", "it died"])
    assert soak(time.monotonic() + 5, lambda: next(complaints)) == "it died"
    began = time.monotonic()
    assert soak(began + 0.3, lambda: "") == ""
    assert time.monotonic() - began >= 0.3


def test_a_drain_waits_for_open_connections_and_no_longer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = server.getsockname()
        with socket.create_connection(target):
            assert established([target]) == 1
            assert not drain([target], time.monotonic() + 0.2), "somebody is still there"
        began = time.monotonic()
        assert drain([target], began + 5)
        assert time.monotonic() - began < 1


# --- What clients miss ------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    status = 200
    waits = 0.0

    def do_GET(self) -> None:
        time.sleep(type(self).waits)
        self.send_response(type(self).status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> ThreadingHTTPServer:
    Handler.status, Handler.waits = 200, 0.0
    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def test_the_prober_adds_up_for_how_long_nobody_was_served(server: ThreadingHTTPServer) -> None:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with Prober([(server.server_address[1], "/")]) as prober:
            time.sleep(0.3)
            assert prober.missed == 0
            Handler.status = 503
            time.sleep(0.4)
            Handler.status = 404
            time.sleep(0.3)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert 0.25 <= prober.missed <= 0.6


def test_the_prober_counts_how_long_it_waited_for_an_answer_that_was_good_in_the_end(
    server: ThreadingHTTPServer,
) -> None:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with Prober([(server.server_address[1], "/")]) as prober:
            time.sleep(0.2)
            Handler.waits = 0.7
            time.sleep(0.2)
            Handler.waits = 0.0
            time.sleep(0.8)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert 0.65 <= prober.missed <= 1.0


def test_a_port_on_which_nobody_listens_counts_in_full(server: ThreadingHTTPServer) -> None:
    port = server.server_address[1]
    server.server_close()
    with Prober([(port, "/")]) as prober:
        time.sleep(0.5)
    assert 0.4 <= prober.missed <= 0.7


def test_where_nothing_is_to_be_asked_nothing_is_missed() -> None:
    with Prober([]) as prober:
        pass
    assert prober.missed == 0
