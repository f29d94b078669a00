"""The README's two commands on fresh Debian machines, and everything an operator does after them.

Minutes per machine, so `make test` leaves this folder out and `make fresh` runs it. What is cloned is what is
committed; changes that are not committed take no part.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.fresh.machine import Machine, Ran, phases

ANSWERS_AT = "http://127.0.0.1:4000"
LIMIT = float(os.environ.get("FRESH_LIMIT", "150"))
"""Seconds that `make up` may take; 0 only measures, for a machine that has other work to do meanwhile."""

RECAP = re.compile(r"^here\s+: ok=\d+\s+changed=(?P<changed>\d+)\s+unreachable=0\s+failed=0\s", re.MULTILINE)

# The machine has no curl.
CLIENT = """
import sys, urllib.request
token, url, *body = sys.argv[1:]
headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
request = urllib.request.Request(url, data=body[0].encode() if body else None, headers=headers)
print(urllib.request.urlopen(request, timeout=5).read().decode())
"""
BACKEND = "$(docker ps --quiet --filter label=org.slipway.name=semiont-local)"


@dataclass
class Fresh:
    """A machine after its first `make up`."""

    machine: Machine
    up: Ran

    def ask(self, path: str, body: dict[str, str] | None = None) -> dict[str, object]:
        """Send a request to the backend from inside the machine, and decode the answer."""
        [token] = self.machine.lines(f"docker exec {BACKEND} backend token")
        words = [token, f"{ANSWERS_AT}{path}", *([json.dumps(body)] if body else [])]
        return dict(json.loads(self.machine.type(f"python3 -c {shlex.quote(CLIENT)} {shlex.join(words)}").ok().output))

    def slipway(self, words: str) -> Ran:
        """Type `slipway …` as its user has to."""
        return self.machine.type(f"{'' if self.machine.user == 'root' else 'sudo '}slipway {words}")


@pytest.fixture(
    scope="module",
    params=[("debian13", "root"), ("debian13", "operator"), ("debian12", "operator")],
    ids=["debian13-root", "debian13-sudo", "debian12-sudo"],
)
def fresh(request: pytest.FixtureRequest) -> Iterator[Fresh]:
    """A fresh machine on which a newcomer has typed what the README says."""
    system, user = request.param
    with Machine(f"slipway-fresh-{system}-{user}", system=system, user=user) as machine:
        machine.install_what_the_readme_names()
        machine.clone()
        yield Fresh(machine, machine.make("up").ok())


def changes(ran: Ran) -> int:
    """How many tasks of a run changed something."""
    found = RECAP.search(ran.ok().output)
    assert found, ran.output
    return int(found["changed"])


def test_make_up_ends_in_a_verified_backend(fresh: Fresh) -> None:
    assert fresh.ask("/api/health")["status"] == "ok"
    assert fresh.ask("/api/ready")["status"] == "ready"
    fresh.slipway("status").ok()


def test_make_up_ends_by_saying_where_it_answers_what_runs_and_what_next(fresh: Fresh) -> None:
    ending = fresh.up.output.partition("is healthy.")[2]
    assert ANSWERS_AT in ending
    assert "sha256:" in ending
    assert "schema 0002" in ending
    assert re.findall(r"slipway (status|logs|rollback) --name ", ending) == ["status", "logs", "rollback"]


def test_make_up_is_quick_enough(fresh: Fresh, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        said = f"make up, fresh {fresh.machine.system}, {fresh.machine.user}: {fresh.up.seconds:.0f} s"
        sys.stdout.write(f"\n{said} ({phases(fresh.up.output)})\n")
    assert not LIMIT or fresh.up.seconds <= LIMIT


def test_the_second_make_up_changes_nothing_and_touches_no_container(fresh: Fresh) -> None:
    before = fresh.machine.containers()
    assert changes(fresh.machine.make("up")) == 0
    assert fresh.machine.containers() == before


def test_data_survives_make_down_and_make_up(fresh: Fresh) -> None:
    kept = fresh.ask("/api/documents", {"title": "Kept", "content": "over make down"})
    fresh.machine.make("down").ok()
    assert fresh.machine.containers() == {}
    fresh.machine.make("up").ok()
    assert fresh.ask(f"/api/documents/{kept['id']}") == kept
    fresh.slipway("status").ok()


def test_make_destroy_leaves_docker_and_nothing_of_the_kit(fresh: Fresh) -> None:
    fresh.machine.make("destroy yes=1").ok()
    assert fresh.machine.lines("docker ps --all --quiet") == []
    assert fresh.machine.lines("docker volume ls --quiet") == []
    assert fresh.machine.lines("docker network ls --filter type=custom --quiet") == []
    assert fresh.machine.lines("docker image ls --all --quiet") == []
    kept = fresh.machine.lines("find /srv /opt /usr/local/bin -name 'slipway*'")
    assert kept == [], "no release, no engine, no program"
    assert fresh.machine.lines("docker info --format '{{.ServerVersion}}'"), "Docker itself stays"


def test_stopping_and_removing_what_is_gone_is_no_failure(fresh: Fresh) -> None:
    assert changes(fresh.machine.make("down")) == 0
    assert changes(fresh.machine.make("destroy yes=1")) == 0
