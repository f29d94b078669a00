"""The gate: what a release must meet before it counts as serving.

A release passes when every container runs and every service with a `health` contract has answered as promised,
`passes` times in a row, within `start_period` seconds. A container that keeps dying fails the gate at once;
waiting for its time to run out would tell nothing new.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import msgspec

from slipway.contract import DatabaseProbe, Expectation, Health
from slipway.daemon import Container as Found
from slipway.daemon import Daemon
from slipway.errors import UnhealthyError
from slipway.release import Instance, Manifest, instances

GIVE_UP_AFTER_RESTARTS = 2
EAGER = 0.05
"""Seconds between two looks until the first good answer."""
CONTAINER_LOOK = 0.5
"""Seconds between two looks at the containers while probing."""
VERSION_LABEL = "org.opencontainers.image.version"


class Answer(msgspec.Struct, frozen=True):
    """One HTTP answer, or why there was none."""

    status: int
    body: bytes
    error: str = ""


def fetch(address: str, port: int, path: str, timeout: float) -> Answer:
    """GET `path` from an address of this host. Never raises for what a network does."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return Answer(response.status, response.read(65536))
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, b"", str(error) or type(error).__name__)
    finally:
        connection.close()


def complaint(answer: Answer, health: Health, version: str) -> str:
    """Say what is wrong with an answer by the contract; an empty string when nothing is.

    `version` is the image's own version label, compared only where the contract says where the body tells it.
    """
    if answer.error:
        return f"no answer from {health.path}: {answer.error}"
    if answer.status != health.status:
        return f"{health.path} answered {answer.status} instead of {health.status}: {_excerpt(answer.body)}"
    promised = health.expectations
    if health.version and version:
        promised[health.version] = Expectation(equals=version)
    return f"{health.path} {wrong}" if promised and (wrong := _broken_promise(answer.body, promised)) else ""


def _broken_promise(body: bytes, promised: Mapping[str, Expectation]) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return f"answered something that is not JSON: {_excerpt(body)}"
    for key, wanted in promised.items():
        if wrong := _unmet(_dig(document, key), wanted):
            return f"says {key} is {wrong}"
    return ""


def _unmet(found: Any, wanted: Expectation) -> str:
    """How what was found differs from what was expected; empty where it does not."""
    if wanted.equals is not msgspec.UNSET and not _same(found, wanted.equals):
        return f"{found!r} instead of {wanted.equals!r}"
    if wanted.one_of and not any(_same(found, one) for one in wanted.one_of):
        return f"{found!r} instead of one of {', '.join(map(repr, wanted.one_of))}"
    if wanted.present is not None and (found is not None) != wanted.present:
        return f"{found!r} instead of {'anything' if wanted.present else 'nothing'}"
    return ""


def _same(found: Any, wanted: Any) -> bool:
    """As JSON compares, where true is not 1."""
    return bool(found == wanted) and isinstance(found, bool) == isinstance(wanted, bool)


SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""What a client of PostgreSQL may say first; every server answers it with S or N before anybody has logged in."""


def greeting(connect: str, timeout: float) -> str:
    """What is wrong with the PostgreSQL at `host:port`, as far as a greeting tells; empty where it answers."""
    host, _, port = connect.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout) as connection:
            connection.sendall(SSL_REQUEST)
            said = connection.recv(1)
    except OSError as error:
        return f"no answer from the database at {connect}: {error}"
    return "" if said in (b"S", b"N") else f"what answers at {connect} is no PostgreSQL"


class Gate:
    """The gate of one release on this host."""

    def __init__(
        self,
        manifest: Manifest,
        daemon: Daemon,
        *,
        addresses: Mapping[str, str],
        redacted: Callable[[str], str],
    ) -> None:
        self._manifest = manifest
        self._daemon = daemon
        self._addresses = addresses
        """Container -> where it listens."""
        self._redacted = redacted
        """Takes the release's secrets out of a text: an answer may tell them, and it is shown to people."""

    def wait(self, only: Container[str] | None = None) -> None:
        """Return when every container (of the services `only`, where given) has passed.

        Raises :class:`UnhealthyError` that says which one failed and why.
        """
        for one in instances(self._manifest.services):
            if only is None or one.service in only:
                self._wait_for(one)

    def look(self) -> dict[str, str]:
        """Probe every container once: name -> what is wrong with it, for those with which something is."""
        containers = self.containers()
        found = {
            one.name: _container_complaint(one.name, containers.get(one.name)) or self._probe(one)
            for one in instances(self._manifest.services)
        }
        return {name: self._redacted(wrong) for name, wrong in found.items() if wrong}

    def watch(self) -> Callable[[], str]:
        """A look at a release that serves, to be repeated: empty, or what is wrong by now.

        A container that is not up, or was started again, is wrong at once; one that answers otherwise than promised
        is when it has done so `retries` times, one `interval` after the other.
        """
        rounds = [
            _Round(one.name, probe, interval, health.retries)
            for one in instances(self._manifest.services)
            if (health := self._manifest.services[one.service].health)
            for probe, interval in self._rounds(one, health)
        ]

        def complaint() -> str:
            for name, container in self.containers().items():
                if container.restarts or container.state != "running":
                    return f"{name} died"
            for one in rounds:
                if wrong := one.complaint():
                    return self._redacted(f"{one.name}: {wrong}")
            return ""

        return complaint

    def _rounds(self, one: Instance, health: Health) -> Iterator[tuple[Callable[[], str], float]]:
        """What is asked of a container that serves, and every how many seconds."""
        yield lambda: self._answers(one), health.interval
        if database := health.database:
            yield lambda: self._database(one, database), database.interval

    def containers(self) -> dict[str, Found]:
        """The release's containers by their name in Compose."""
        return {
            container.service: container
            for container in self._daemon.containers(self._manifest.name)
            if container.release == self._manifest.id and not container.one_off
        }

    def _wait_for(self, one: Instance) -> None:
        health = self._manifest.services[one.service].health
        budget = health.start_period if health else 10.0
        needed = health.passes if health else 2
        interval = health.start_interval if health else CONTAINER_LOOK
        deadline = time.monotonic() + budget
        passes, next_look = 0, 0.0
        wrong = state = own_check = "it was never probed"
        while time.monotonic() < deadline:
            if time.monotonic() >= next_look:
                container = self.containers().get(one.name)
                if container is not None and container.restarts >= GIVE_UP_AFTER_RESTARTS:
                    raise UnhealthyError(
                        f"The service {one.name} dies again and again: {_ending(container)}.",
                        "Its last lines are below.",
                    )
                state, own_check = _container_complaint(one.name, container), _not_yet(one.name, container)
                next_look = time.monotonic() + (EAGER if state or own_check else CONTAINER_LOOK)
            wrong = state or self._probe(one)
            passes = 0 if wrong else passes + 1
            if passes >= needed and not own_check:
                return
            # The image's own check and these answers come at the same time, and both have to be there in the end.
            wrong = wrong or own_check
            # A start is as quick as it is noticed; the interval is for the answers in a row.
            time.sleep(interval if 0 < passes < needed else min(interval, EAGER))
        raise UnhealthyError(
            f"The service {one.name} did not become healthy in {budget:g} seconds: {self._redacted(wrong)}.",
            "Its last lines are below.",
        )

    def _probe(self, one: Instance) -> str:
        health = self._manifest.services[one.service].health
        wrong = self._answers(one)
        return self._database(one, health.database) if not wrong and health and health.database else wrong

    def _database(self, one: Instance, probe: DatabaseProbe) -> str:
        if probe.connect:
            return greeting(probe.connect, probe.timeout)
        container = self.containers().get(one.name)
        if container is None:
            return _container_complaint(one.name, None)
        code, said = self._daemon.execute(container.id, probe.command, probe.timeout)
        if code is None:
            return f"its database probe took longer than {probe.timeout:g} seconds"
        return f"its database probe ended with exit code {code}: {_excerpt(said)}" if code else ""

    def _answers(self, one: Instance) -> str:
        service = self._manifest.services[one.service]
        if service.health is None or service.port is None:
            return ""
        answer = fetch(self._addresses[one.name], service.port, service.health.path, service.health.timeout)
        version = self._version(one.service) if service.health.version else ""
        return complaint(answer, service.health, version)

    def _version(self, name: str) -> str:
        image = self._daemon.image(self._manifest.images[name]) or {}
        labels = image.get("Config", {}).get("Labels") or {}
        return str(labels.get(VERSION_LABEL, ""))


class _Round:
    """A probe that is repeated: wrong once it has failed so many times, one interval after the other."""

    def __init__(self, name: str, probe: Callable[[], str], interval: float, retries: int) -> None:
        self.name = name
        self._probe = probe
        self._interval = interval
        self._retries = retries
        self._due = 0.0
        self._failures = 0

    def complaint(self) -> str:
        """What is wrong by now, if anything; between two intervals nothing is asked."""
        if time.monotonic() < self._due:
            return ""
        self._due = time.monotonic() + self._interval
        wrong = self._probe()
        self._failures = self._failures + 1 if wrong else 0
        return wrong if self._failures >= self._retries else ""


def _not_yet(name: str, container: Found | None) -> str:
    """A container whose image has a check of its own passes it too."""
    starting = container is not None and container.health == "starting"
    return f"the container of {name} has not passed its image's own check yet" if starting else ""


def _container_complaint(name: str, container: Found | None) -> str:
    if container is None:
        return f"the service {name} has no container"
    if container.state != "running":
        return f"the container of {name} is {container.state} ({_ending(container)})"
    if container.health == "unhealthy":
        return f"the container of {name} is unhealthy by its image's own check"
    return ""


def _ending(container: Found) -> str:
    if container.state == "running":
        # Docker has started it again already, and no longer tells how it ended before.
        return f"restarted {container.restarts} times"
    return container.error or f"exit code {container.exit_code}"


def _dig(body: Any, key: str) -> Any:
    for part in key.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body


def _excerpt(body: bytes) -> str:
    return body[:200].decode(errors="replace") or "(empty)"
