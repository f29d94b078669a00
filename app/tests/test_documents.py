from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from backend_support import Process, run_migrations


def test_many_writers_at_once_all_succeed_with_ids_of_their_own(server: Process) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: server.call("POST", "/api/documents", {"title": f"{n}"}), range(64)))

    assert {answer.status for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 64


def test_documents_are_still_there_in_the_next_process(database_url: str, start: Callable[..., Process]) -> None:
    run_migrations(database_url)
    first = start(database_url)
    location = first.call("POST", "/api/documents", {"title": "kept"}).headers["location"]
    first.terminate()
    assert first.wait() == 0

    assert start(database_url).call("GET", location).json["title"] == "kept"
