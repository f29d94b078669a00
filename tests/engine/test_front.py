"""The edge tier as it runs: a real edge that balances over app hosts, which are addresses of this machine."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from slipway.contract import Health, Route, Service, Tls
from slipway.edge import Site, balanced, site
from slipway.errors import PreflightError, SlipwayError, UsageError
from slipway.front import Drained, FrontRequest, Fronts, front_status
from slipway.release import Manifest
from tests.engine.test_edge import ADDRESS, App, Load, Stack, ask, free_port, own_certificate, stack_of, trusting, until

pytestmark = pytest.mark.docker

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
HOSTS = {"app1": "127.0.0.81", "app2": "127.0.0.82"}
OFFERED = "127.0.0.83"
"""Where the app host of the chain is reached by the tier."""
LOOPBACK = "127.0.0.84"
"""Stands for the loopback address of the tier's host where the app host has that of this machine."""
CLIENT = "127.0.0.85"
ALICE = Drained(since="2026-11-24T18:00:00+00:00", by="alice", reason="a new disk")


class AppHost:
    """An app host as the tier sees it: an address that answers, and may stop to, or be ill."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.health = 200
        self.checks: list[dict[str, str]] = []
        self._where = (HOSTS[name], port)
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                if self.path == "/slow":
                    time.sleep(2)
                if self.path == "/ready":
                    host.checks.append(dict(self.headers.items()))
                body = json.dumps({"host": host.name}).encode()
                status = host.health if self.path == "/ready" else 200
                head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
                self.wfile.write(head.encode() + body)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.wfile.write(b"HTTP/1.1 201 X\r\nContent-Length: 0\r\n\r\n")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(self._where, Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_of(tmp_path_factory.mktemp("srv"), f"test{WORKER}-tier") as made:
        yield made


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture
def apps(port: int) -> Iterator[dict[str, AppHost]]:
    made = {name: AppHost(name, port) for name in HOSTS}
    for host in made.values():
        host.start()
    yield made
    for host in made.values():
        host.stop()


def api(port: int, **change: Any) -> Service:
    fields: dict[str, Any] = {
        "image": "r/api",
        "user": "1:1",
        "port": 8000,
        "publish": port,
        "health": Health(path="/ready", interval=0.2, timeout=1.0),
        "route": Route(hosts=["shop.test"]),
        "drain_seconds": 5.0,
    }
    return Service(**{**fields, **change})


def request(port: int, **change: Any) -> FrontRequest:
    fields: dict[str, Any] = {"name": "shop", "services": {"api": api(port)}, "hosts": HOSTS}
    return FrontRequest(**{**fields, **change})


@pytest.fixture
def fronts(running: Stack) -> Iterator[Fronts]:
    yield Fronts(running.root)
    running.edge.remove("shop")


@pytest.fixture
def balancing(fronts: Fronts, apps: dict[str, AppHost], port: int) -> Fronts:
    """Both hosts get requests."""
    fronts.declare(request(port))
    until(lambda: answering() == {"app1", "app2"}, seconds=3)
    return fronts


def answering(asked: int = 10) -> set[str]:
    """Which app hosts answer, by the public name; every answer has to be good."""
    answers = [ask(80, host="shop.test") for _ in range(asked)]
    assert {status for status, _, _ in answers} == {200}
    return {json.loads(body)["host"] for _, _, body in answers}


# --- what is declared ---------------------------------------------------------------------------------------------


def test_the_names_of_an_environment_are_balanced_over_its_hosts(balancing: Fronts) -> None:
    assert answering() == {"app1", "app2"}
    assert ask(80, host="else.test")[0] == 404
    assert ask(80, host="shop.test", method="POST", body=b"x")[0] == 201


def test_a_second_time_nothing_is_changed_and_check_mode_changes_nothing(balancing: Fronts, port: int) -> None:
    assert balancing.declare(request(port)) == {
        "changed": False,
        "msg": "shop is balanced over app1, app2.",
        "diff": [],
        "drained": [],
    }
    fewer = request(port, hosts={"app1": HOSTS["app1"]}, check=True)
    answer = balancing.declare(fewer)
    assert (answer["changed"], answer["msg"]) == (True, "shop is balanced over app1.")
    [diff] = answer["diff"]
    assert diff["path"] == "switch/shop.caddy"
    assert HOSTS["app2"] in diff["before"]
    assert HOSTS["app2"] not in diff["after"]
    assert answering() == {"app1", "app2"}


def test_what_has_no_names_any_more_is_forgotten(balancing: Fronts, running: Stack, port: int) -> None:
    for check, changed in ((True, True), (False, True), (False, False)):
        answer = balancing.declare(request(port, services={}, check=check))
        assert (answer["changed"], answer["msg"]) == (changed, "shop is not balanced here.")
    assert balancing.names() == []
    # By this folder playbooks/destroy.yml knows whether a host is still needed.
    assert not running.edge.front("shop").parent.exists()
    with pytest.raises(ConnectionRefusedError):
        ask(80, host="shop.test")


def test_a_site_that_is_refused_is_not_noted_either(balancing: Fronts) -> None:
    with pytest.raises(SlipwayError, match="refuses its new configuration") as refused:
        balancing.declare(request(free_port(), name="other", services={"api": api(free_port())}))
    assert "ambiguous site definition: http://shop.test" in refused.value.details
    assert balancing.names() == ["shop"]
    assert answering() == {"app1", "app2"}


def test_the_tier_ends_tls_with_the_certificate_that_is_given(
    fronts: Fronts, running: Stack, apps: dict[str, AppHost], port: int, tmp_path: Any
) -> None:
    files = {name: content.decode() for name, content in own_certificate(tmp_path, "shop.test").items()}
    service = api(port, route=Route(hosts=["shop.test"], tls=Tls(mode="own")))
    wanted = request(port, services={"api": service}, certificates=files, fingerprints={"edge/api.crt": "1" * 64})
    assert fronts.declare(wanted)["changed"]
    assert not fronts.declare(wanted)["changed"]
    status, _, body = ask(443, host="shop.test", tls=trusting(tmp_path / "api.crt"))
    assert status == 200
    assert json.loads(body)["host"] in apps
    assert ask(80, host="shop.test")[0] == 308
    assert fronts.drain("shop", "app2", ALICE)["changed"]
    # Rewriting the site for that kept the certificate.
    assert ask(443, host="shop.test", tls=trusting(tmp_path / "api.crt"))[0] == 200
    assert "PRIVATE" not in running.edge.front("shop").read_text()


# --- hosts that do not answer -------------------------------------------------------------------------------------


def test_a_host_that_fails_its_checks_gets_no_requests_until_it_passes_them(
    balancing: Fronts, apps: dict[str, AppHost]
) -> None:
    apps["app2"].health = 503
    until(lambda: answering() == {"app1"}, seconds=3)
    assert answering(40) == {"app1"}
    apps["app2"].health = 200
    until(lambda: answering() == {"app1", "app2"}, seconds=3)


def test_a_host_that_dies_costs_no_request_and_comes_back_by_itself(
    balancing: Fronts, apps: dict[str, AppHost]
) -> None:
    with Load(80, "shop.test") as load:
        apps["app2"].stop()
        time.sleep(1.5)
        apps["app2"].start()
        until(lambda: answering() == {"app1", "app2"}, seconds=5)
    assert load.failures == []
    assert load.answers > 100


def test_checks_look_like_those_of_a_client_on_the_edge_itself(balancing: Fronts, apps: dict[str, AppHost]) -> None:
    until(lambda: len(apps["app1"].checks) > 1, seconds=3)
    headers = apps["app1"].checks[-1]
    assert (headers["X-Forwarded-For"], headers["X-Forwarded-Proto"]) == ("127.0.0.1", "http")


# --- taking a host out --------------------------------------------------------------------------------------------


def test_draining_under_load_costs_no_request_and_no_connection(balancing: Fronts) -> None:
    with Load(80, "shop.test") as load:
        for _ in range(3):
            assert balancing.drain("shop", "app2", ALICE)["msg"] == "app2 now gets no requests."
            assert answering() == {"app1"}
            assert balancing.drain("shop", "app2", None)["msg"] == "app2 now gets requests."
            until(lambda: answering() == {"app1", "app2"}, seconds=2)
    assert load.failures == []
    assert load.connections == Load.CLIENTS


def test_a_drained_host_first_ends_what_it_has_begun(balancing: Fronts) -> None:
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(80, "/slow", host="shop.test")[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    answer = balancing.drain("shop", "app2", ALICE)
    assert answer["left"] == 0
    assert time.monotonic() - began > 1
    for thread in threads:
        thread.join()
    assert answers == [200] * 4


def test_what_takes_longer_than_the_contract_gives_it_is_counted(
    fronts: Fronts, apps: dict[str, AppHost], port: int
) -> None:
    fronts.declare(request(port, services={"api": api(port, drain_seconds=0.1)}))
    until(lambda: answering() == {"app1", "app2"}, seconds=3)
    threads = [threading.Thread(target=lambda: ask(80, "/slow", host="shop.test")) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    answer = fronts.drain("shop", "app2", ALICE)
    for thread in threads:
        thread.join()
    assert answer["left"] > 0
    assert answer["msg"].endswith("are still under way after 0.1 s.")


def test_a_drained_host_stays_so_whatever_is_declared_until_it_is_taken_back(balancing: Fronts, port: int) -> None:
    balancing.drain("shop", "app2", ALICE)
    answer = balancing.declare(request(port, services={"api": api(port, drain_seconds=6.0)}))
    assert (answer["changed"], answer["drained"]) == (True, ["app2"])
    assert answer["msg"] == "shop is balanced over app1, without app2."
    assert answering() == {"app1"}
    again = balancing.drain("shop", "app2", Drained(since="later", by="bob", reason="it reboots"))
    assert (again["changed"], again["reason"]) == (False, "a new disk")
    back = balancing.drain("shop", "app2", None)
    assert (back["changed"], back["reason"]) == (True, "a new disk")


def test_check_mode_says_what_would_be_and_drains_nothing(balancing: Fronts) -> None:
    answer = balancing.drain("shop", "app2", ALICE, check=True)
    assert (answer["changed"], answer["msg"]) == (True, "app2 would get no requests.")
    assert answering() == {"app1", "app2"}


def test_the_last_one_that_answers_is_not_drained_unless_forced(balancing: Fronts, apps: dict[str, AppHost]) -> None:
    apps["app1"].health = 503
    with pytest.raises(PreflightError, match=r"Without app2 nobody would answer for shop \(app1: /ready answered 503"):
        balancing.drain("shop", "app2", ALICE)
    apps["app1"].health = 200
    balancing.drain("shop", "app1", ALICE)
    with pytest.raises(PreflightError, match=r"nobody would answer for shop \(all others are drained\)"):
        balancing.drain("shop", "app2", ALICE)
    assert answering() == {"app2"}
    balancing.drain("shop", "app2", ALICE, force=True)
    assert ask(80, host="shop.test")[0] == 503


def test_one_that_does_not_answer_is_not_taken_back_unless_forced(balancing: Fronts, apps: dict[str, AppHost]) -> None:
    balancing.drain("shop", "app2", ALICE)
    apps["app2"].stop()
    with pytest.raises(PreflightError, match=r"app2 does not answer for shop yet \(no answer from /ready"):
        balancing.drain("shop", "app2", None)
    assert balancing.drain("shop", "app2", None, force=True)["changed"]
    assert answering() == {"app1"}


def test_a_host_or_an_environment_that_is_not_there_is_named_with_those_that_are(balancing: Fronts) -> None:
    with pytest.raises(UsageError, match=r"shop has no app host app3\. It has app1, app2\."):
        balancing.drain("shop", "app3", ALICE)
    with pytest.raises(PreflightError, match=r"balances no environment shpo\. It balances shop;"):
        balancing.drain("shpo", "app1", ALICE)


def test_the_status_tells_each_host_and_what_keeps_it_from_serving(
    balancing: Fronts, running: Stack, apps: dict[str, AppHost]
) -> None:
    assert front_status("shop", running.root).healthy
    balancing.drain("shop", "app2", ALICE)
    apps["app1"].health = 500
    found = front_status("shop", running.root)
    assert not found.healthy
    assert found.complaint.startswith("app1: /ready answered 500 instead of 200")
    assert (found.hosts["app2"].since, found.hosts["app2"].by, found.hosts["app2"].complaint) == (
        ALICE.since,
        "alice",
        "",
    )
    assert found.names == ["shop.test"]


# --- through both edges -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The edge of an app host that the tier of this machine stands before."""
    root = tmp_path_factory.mktemp("app")
    tier = f"{OFFERED} for 127.0.0.1 {LOOPBACK}"
    with stack_of(root, f"test{WORKER}-behind", __edge_tier=tier) as made:
        yield made


@pytest.fixture(scope="module")
def behind() -> Iterator[str]:
    """The application on the app host."""
    with ThreadingHTTPServer(("127.0.0.1", 0), App) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def chain(running: Stack, app_host: Stack, behind: str) -> Iterator[int]:
    """The port of a service on an app host, which the tier balances over that host alone."""
    port = free_port()
    shop = Manifest(
        name="shop",
        environment="test",
        id="0" * 16,
        kit="1",
        images={},
        tags={},
        fingerprints={},
        services={"api": api(port, route=Route(hosts=["shop.test"], max_body="1kB"))},
    )
    app_host.edge.apply("shop", site(shop, {"api": [behind]}, None, app_host.edge.tier()))
    tier = balanced(shop, [OFFERED])
    # Both hosts are this machine, and only one of them can have its loopback address.
    running.edge.apply("shop", Site(entry=tier.entry.replace("127.0.0.1", LOOPBACK), switch=tier.switch))
    yield port
    running.edge.remove("shop")
    app_host.edge.remove("shop")


def from_address(source: str, address: str, port: int, **headers: str) -> tuple[int, bytes]:
    """Ask as a client with an address of its own."""
    made = http.client.HTTPConnection(address, port, timeout=10, source_address=(source, 0))
    with closing(made):
        made.request("GET", "/", headers=headers)
        answer = made.getresponse()
        return answer.status, answer.read()


def test_the_application_learns_who_asked_the_tier_and_nobody_can_claim_to_be_another(chain: int) -> None:
    claim = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "bank.test"}
    status, body = from_address(CLIENT, ADDRESS, 80, Host="shop.test", **claim)
    told = json.loads(body)["headers"]
    assert status == 200
    assert told["host"] == "shop.test"
    assert (told["x-forwarded-for"], told["x-forwarded-proto"], told["x-forwarded-host"]) == (
        CLIENT,
        "http",
        "shop.test",
    )


def test_an_app_host_answers_the_tier_alone_and_on_its_private_address_alone(chain: int, app_host: Stack) -> None:
    assert from_address(CLIENT, OFFERED, chain, Host="shop.test")[0] == 403
    assert from_address("127.0.0.1", OFFERED, chain, Host="shop.test")[0] == 200
    assert from_address(CLIENT, "127.0.0.1", chain, Host="shop.test")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        from_address(CLIENT, "127.0.0.86", chain)
    assert "http://shop.test" not in (app_host.edge.site("shop") or Site(entry="", switch="")).entry


def test_a_client_on_the_app_host_itself_cannot_claim_to_be_another_either(chain: int) -> None:
    _, body = from_address(CLIENT, "127.0.0.1", chain, **{"X-Forwarded-For": "192.0.2.7"})
    assert json.loads(body)["headers"]["x-forwarded-for"] == CLIENT


def test_checks_are_no_lines_in_the_access_log_of_an_app_host_and_requests_are(chain: int, app_host: Stack) -> None:
    time.sleep(1)
    from_address(CLIENT, ADDRESS, 80, Host="shop.test")
    lines = [json.loads(line) for line in app_host.edge.log("shop").read_text().splitlines()]
    assert lines
    assert not [line for line in lines if line["request"]["uri"] == "/ready"]


def test_what_is_too_large_is_refused_by_the_tier(chain: int) -> None:
    assert ask(80, host="shop.test", method="POST", body=b"x" * 1001)[0] == 413


def test_a_switch_of_releases_behind_the_tier_costs_no_request(chain: int, app_host: Stack, behind: str) -> None:
    with Load(80, "shop.test") as load:
        for number in range(5):
            shop = Manifest(
                name="shop",
                environment="test",
                id=f"{number:016x}",
                kit="1",
                images={},
                tags={},
                fingerprints={},
                services={"api": api(chain)},
            )
            app_host.edge.apply("shop", site(shop, {"api": [behind]}, None, app_host.edge.tier()))
            time.sleep(0.2)
    assert load.failures == []
    assert load.connections == Load.CLIENTS
