"""The edge as it runs: a stack of its own on this machine's Docker, apart from the machine's edge."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from slipway import stack
from slipway.contract import Health, Route, Service, Tls
from slipway.edge import Edge, Maintenance, site
from slipway.errors import SlipwayError
from slipway.protocol import PROTOCOL
from slipway.release import Manifest
from slipway.stack import Reload, StackFile, StackRequest

pytestmark = pytest.mark.docker

KIT = Path(__file__).parents[2]
NAME = f"test{os.environ.get('PYTEST_XDIST_WORKER', '')}-edge"
PROJECT = f"slipway-{NAME}"
ADDRESS = "127.0.0.77"
"""Where the public entry of this edge is open: of all hosts only this one reaches it, and the machine's own edge has
other addresses."""
SECRETS = ("geheim-in-a-header", "geheim-in-a-cookie", "geheim-in-the-query")
CLOSED = Maintenance(since="2026-11-24 18:00 UTC", by="alice", reason="The database moves.", retry_after=120)


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def edge_image() -> str:
    repository = "127.0.0.1:5000/slipway/edge"
    lock = KIT / "inventories" / "local" / "images.lock.yml"
    tags = yaml.safe_load(lock.read_text())["images"].get(repository, {}) if lock.exists() else {}
    if not tags:
        pytest.fail("There is no edge image on this machine. Run playbooks/images.yml first.")
    return f"{repository}@{list(tags.values())[-1]}"


class App(BaseHTTPRequestHandler):
    """An application: tells what it was asked, and takes its time where the path says so."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(2)
        if self.path == "/events":
            self._events()
            return
        self._say({"path": self.path, "headers": {name.lower(): value for name, value in self.headers.items()}})

    def do_POST(self) -> None:
        self._say({"bytes": len(self.rfile.read(int(self.headers["Content-Length"])))})

    def _say(self, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def _events(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for number in range(20):
            self.wfile.write(b"data: %d\n\n" % number)
            time.sleep(0.1)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def app() -> Iterator[str]:
    """An application that listens; its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), App) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


class Stack:
    """The edge's stack, from the templates and defaults that the role has."""

    def __init__(self, root: Path, name: str = NAME) -> None:
        self.root = root
        self.name = name
        self.project = f"slipway-{name}"
        self.metrics = free_port()
        self.edge = Edge(root)
        self._variables: dict[str, Any] = {
            **yaml.safe_load((KIT / "roles/edge/defaults/main.yml").read_text()),
            "edge_bind_addresses": [ADDRESS],
            "edge_metrics_port": self.metrics,
            "__edge_image": edge_image(),
            "__edge_tier": "",
        }

    def request(self, state: str = "present", **variables: Any) -> StackRequest:
        templar = Templar(loader=DataLoader(), variables={**self._variables, **variables})

        def laid_out(path: str) -> str:
            text = str(templar.template(trust_as_template((KIT / "compose/edge" / f"{path}.j2").read_text())))
            named = text.replace("slipway-edge", self.project)
            return named.replace("org.slipway.name: edge", f"org.slipway.name: {self.name}")

        main = ("entry", "switch")
        return StackRequest(
            name=self.name,
            files=[
                StackFile(path=path, content=laid_out(path))
                for path in ("compose.yml", *(f"{caddy}.caddyfile" for caddy in main))
            ],
            reload=[Reload(file=f"{caddy}.caddyfile", socket=f"run/{caddy}.sock") for caddy in main],
            state=state,  # type: ignore[arg-type]  # one of its three
            purge=True,
        )

    def run(self, state: str = "present", **variables: Any) -> dict[str, Any]:
        return stack.run(self.request(state, **variables), self.root)

    def begin(self) -> None:
        """Have the engine begin to start it, as Ansible does on a new host."""
        asked = json.dumps({**msgspec.to_builtins(self.request()), "begin": True, "protocol": PROTOCOL})
        command = [sys.executable, "-m", "slipway.cli", "--root", str(self.root), "stack", "--json"]
        done = subprocess.run(command, input=asked, check=True, capture_output=True, text=True)
        assert json.loads(done.stdout)["msg"].startswith(f"Stack {self.name}: Begun (entry is not there; ")

    def containers(self) -> list[str]:
        return sorted(docker("ps", "--quiet", "--no-trunc", "--filter", f"name=^{self.project}-").split())


@contextmanager
def stack_of(root: Path, name: str, **variables: Any) -> Iterator[Stack]:
    """An edge of its own, which leaves nothing behind."""
    (root / name).mkdir(mode=0o700)
    (root / "edge").symlink_to(name)
    made = Stack(root, name)
    made.run(**variables)
    yield made
    made.run("absent")
    assert not docker("ps", "--all", "--quiet", "--filter", f"name=^{made.project}-")
    assert not docker("volume", "ls", "--quiet", "--filter", f"name=^{made.project}")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_of(tmp_path_factory.mktemp("srv"), NAME) as made:
        yield made


@pytest.fixture
def edge(running: Stack) -> Iterator[Edge]:
    """An edge that no environment is served by yet."""
    yield running.edge
    running.edge.remove("shop")
    running.edge.remove("other")


@pytest.fixture(scope="module")
def port() -> int:
    """The loopback port of the service `api`."""
    return free_port()


def manifest(port: int, *, name: str = "shop", release: str = "0" * 16, **route: Any) -> Manifest:
    api = Service(
        image="r/api", user="1:1", port=8000, publish=port, health=Health(path="/ready"), route=Route(**route)
    )
    return Manifest(
        name=name,
        environment="test",
        id=release,
        kit="1",
        images={},
        tags={},
        fingerprints={},
        services={"api": api},
    )


@contextmanager
def connection(port: int, host: str = "", tls: ssl.SSLContext | None = None) -> Iterator[http.client.HTTPConnection]:
    """To a loopback port, or to the public entry by one of its names."""
    made = http.client.HTTPConnection(host or "127.0.0.1", port, timeout=10)
    if host:
        raw = socket.create_connection((ADDRESS, port), timeout=10)
        made.sock = tls.wrap_socket(raw, server_hostname=host) if tls else raw
    with closing(made):
        yield made


def ask(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    host: str = "",
    tls: ssl.SSLContext | None = None,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, body."""
    with connection(port, host, tls) as made:
        made.request(method, path, body, headers or {}, encode_chunked=not isinstance(body, bytes | None))
        answer = made.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for it; a connection that fails meanwhile is only a reason to try again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline
        time.sleep(0.1)


def listeners(port: int) -> list[str]:
    """Who listens on a port, one a line."""
    command = ["ss", "-Hltn", f"sport = :{port}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def trusting(pem: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pem))


class Load:
    """Keep-alive clients that ask 100 times a second, all together, and give no request a second chance."""

    CLIENTS = 5
    PAUSE = 0.05

    def __init__(self, port: int, host: str = "") -> None:
        self._port = port
        self._headers = {"Host": host} if host else {}
        self._address = ADDRESS if host else "127.0.0.1"
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(self.CLIENTS)]
        self.failures: list[str] = []
        self.connections = 0
        self.answers = 0

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        time.sleep(0.3)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.3)
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        made = http.client.HTTPConnection(self._address, self._port, timeout=10)
        while not self._end.wait(self.PAUSE):
            self.connections += made.sock is None
            try:
                made.request("GET", "/", headers=self._headers)
                answer = made.getresponse()
                answer.read()
                self.answers += 1
                if answer.status != http.HTTPStatus.OK:
                    self.failures.append(str(answer.status))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                made.close()
        made.close()


# --- the stack ----------------------------------------------------------------------------------------------------


def test_a_second_run_touches_nothing(running: Stack) -> None:
    before = running.containers()
    answer = running.run()
    assert (answer["changed"], answer["msg"]) == (False, f"Stack {NAME}: As declared.")
    assert running.containers() == before


def healthy(running: Stack) -> list[str]:
    return [one.service for one in stack.look(running.project) if one.health == "healthy"]


def test_whoever_needs_an_edge_that_was_only_begun_waits_until_it_is_healthy(running: Stack, edge: Edge) -> None:
    running.run("absent")
    running.begin()
    assert healthy(running) == []
    edge.started()
    assert healthy(running) == ["entry"]
    assert not running.run()["changed"]
    edge.started()


def test_an_edge_that_does_not_start_is_told_to_whoever_waits_for_it_until_a_run_has_mended_it(
    running: Stack, edge: Edge
) -> None:
    running.run("absent")
    with socket.create_server(("127.0.0.1", running.metrics)):
        running.begin()
        for _ in range(2):
            with pytest.raises(SlipwayError, match=r"did not become healthy") as told:
                edge.started()
            assert told.value.do_next.endswith(" Then run playbooks/site.yml again.")
            assert "address already in use" in told.value.details
            assert "\x1b" not in told.value.details
    running.run()
    edge.started()


def test_a_start_that_was_cut_off_is_told_too(running: Stack, edge: Edge) -> None:
    running.run("absent")
    running.begin()
    starting = f"-m slipway.cli --root {running.root} stack"
    os.killpg(int(subprocess.check_output(["pgrep", "--full", "--", starting])), signal.SIGKILL)
    with pytest.raises(SlipwayError, match=r"was cut off\. Run playbooks/site\.yml again\."):
        edge.started()
    running.run()
    edge.started()


def test_a_changed_main_file_is_loaded_and_replaces_no_container(running: Stack) -> None:
    before = running.containers()
    answer = running.run(edge_read_timeout=30)
    assert answer["msg"] == f"Stack {NAME}: entry.caddyfile is loaded anew. As declared."
    assert running.run()["changed"]
    assert running.containers() == before


def test_a_main_file_that_is_refused_is_put_back_and_the_error_has_caddys_words(running: Stack, edge: Edge) -> None:
    with pytest.raises(SlipwayError, match="refuses its new configuration and goes on") as refused:
        running.run(edge_read_timeout="soon")
    assert 'invalid duration "soons"' in refused.value.details
    assert edge.agrees()
    assert not running.run()["changed"]


def test_a_file_that_was_written_and_never_loaded_is_loaded_by_the_next_run(running: Stack, edge: Edge) -> None:
    file = running.root / "edge" / "entry.caddyfile"
    file.write_text(file.read_text().replace("idle 2m", "idle 1m"))
    assert not edge.agrees()
    assert running.run()["changed"]
    assert edge.agrees()


def test_the_containers_are_locked_down(running: Stack) -> None:
    for container in json.loads(docker("inspect", *running.containers())):
        host = container["HostConfig"]
        assert host["CapDrop"] == ["ALL"]
        assert host["CapAdd"] == (["NET_BIND_SERVICE"] if "entry" in container["Name"] else None)
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["ReadonlyRootfs"] is True
        assert host["Memory"] == 256 * 1024**2
        assert host["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}


def test_metrics_are_told_on_loopback_alone(running: Stack) -> None:
    status, _, body = ask(running.metrics, "/metrics")
    assert status == 200
    assert b"caddy_http_requests_total" in body
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        outside = probe.getsockname()[0]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((outside, running.metrics), timeout=2)


def test_where_no_service_has_a_name_the_public_entry_is_closed(edge: Edge, app: str, port: int) -> None:
    edge.apply("shop", site(manifest(port), {"api": [app]}))
    assert ask(port)[0] == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((ADDRESS, 80), timeout=2)


# --- what it serves -----------------------------------------------------------------------------------------------


def test_plain_http_by_loopback_and_by_name(edge: Edge, app: str, port: int) -> None:
    edge.apply("shop", site(manifest(port, hosts=["shop.test"]), {"api": [app]}))
    assert json.loads(ask(port, "/a?b=c")[2])["path"] == "/a?b=c"
    status, headers, body = ask(80, "/a?b=c", host="shop.test")
    assert (status, json.loads(body)["path"]) == (200, "/a?b=c")
    assert "strict-transport-security" not in headers
    assert ask(80, host="else.test")[0] == 404


def test_the_application_learns_who_asked_and_nobody_can_claim_to_be_another(edge: Edge, app: str, port: int) -> None:
    edge.apply("shop", site(manifest(port, hosts=["shop.test"]), {"api": [app]}))
    claim = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "bank.test"}
    told = json.loads(ask(80, host="shop.test", headers=claim)[2])["headers"]
    assert told["host"] == "shop.test"
    assert told["x-forwarded-for"] == ADDRESS.replace("77", "1") or told["x-forwarded-for"] == ADDRESS
    assert (told["x-forwarded-proto"], told["x-forwarded-host"]) == ("http", "shop.test")


def test_the_internal_ca(running: Stack, edge: Edge, app: str, port: int, tmp_path: Path) -> None:
    edge.apply("shop", site(manifest(port, hosts=["shop.test"], tls=Tls(mode="internal")), {"api": [app]}))
    root = tmp_path / "root.crt"
    docker("cp", f"{PROJECT}-entry-1:/var/lib/caddy/pki/authorities/local/root.crt", str(root))
    status, headers, _ = ask(443, host="shop.test", tls=trusting(root))
    assert (status, headers["strict-transport-security"]) == (200, "max-age=31536000")
    status, headers, _ = ask(80, "/a?b=c", host="shop.test")
    assert (status, headers["location"]) == (308, "https://shop.test/a?b=c")


def own_certificate(folder: Path, host: str) -> dict[str, bytes]:
    certificate, key = folder / "api.crt", folder / "api.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "9",
    ]
    names = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in (certificate, key)}


def test_an_own_certificate_and_its_renewal(running: Stack, edge: Edge, app: str, port: int, tmp_path: Path) -> None:
    for number in range(2):
        files = own_certificate(tmp_path, "shop.test")
        shop = manifest(port, hosts=["shop.test"], tls=Tls(mode="own"))
        shop.fingerprints["edge/api.crt"] = f"{number:064x}"[::-1]
        edge.apply("shop", site(shop, {"api": [app]}), files)
        assert ask(443, host="shop.test", tls=trusting(tmp_path / "api.crt"))[0] == 200
    kept = running.root / "edge" / "certificates" / "shop" / "api.key"
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (files["api.key"], 0o400)
    edge.remove("shop")
    assert not kept.parent.exists()


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """An ACME server on this machine, which is a second Caddy: its directory, and the PEM of its CA."""
    port = free_port()
    (tmp_path / "Caddyfile").write_text(
        "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n"
        f"\thttp_port {free_port()}\n\thttps_port {port}\n\tservers {{\n\t\tprotocols h1\n\t}}\n}}\n"
        f"https://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n\ttls internal\n\tacme_server\n}}\n"
    )
    name = f"{PROJECT}-ca"
    docker(
        *("run", "--detach", "--name", name, "--network=host", f"--add-host=acme.test:{ADDRESS}"),
        *("--volume", f"{tmp_path}/Caddyfile:/etc/caddy/Caddyfile:ro", edge_image()),
        *("run", "--config", "/etc/caddy/Caddyfile"),
    )
    try:
        with socket.socket() as probe:
            until(lambda: probe.connect_ex(("127.0.0.1", port)) == 0)
        root = f"{name}:/var/lib/caddy/pki/authorities/local/root.crt"
        copy = ["docker", "cp", "--quiet", root, str(tmp_path / "ca.crt")]
        until(lambda: subprocess.run(copy, check=False, capture_output=True).returncode == 0)
        yield f"https://127.0.0.1:{port}/acme/local/directory", (tmp_path / "ca.crt").read_text()
    finally:
        docker("rm", "--force", "--volumes", name)


def test_a_certificate_from_an_acme_server(
    edge: Edge, app: str, port: int, ca: tuple[str, str], tmp_path: Path
) -> None:
    directory, pem = ca
    tls = Tls(mode="acme", directory=directory, email="ops@acme.test", ca=pem)
    edge.apply("shop", site(manifest(port, hosts=["acme.test"], tls=tls), {"api": [app]}), {"api.ca": pem.encode()})
    until(lambda: ask(443, host="acme.test", tls=trusting(tmp_path / "ca.crt"))[0] == 200)


# --- what it does not let through ---------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_whether_or_not_it_says_so(edge: Edge, app: str, port: int) -> None:
    edge.apply("shop", site(manifest(port, max_body="1kB"), {"api": [app]}))
    assert ask(port, method="POST", body=b"x" * 1000)[2] == b'{"bytes": 1000}'
    assert ask(port, method="POST", body=b"x" * 1001)[0] == 413
    chunks = {"Transfer-Encoding": "chunked"}
    assert ask(port, method="POST", body=iter([b"x" * 600, b"x" * 600]), headers=chunks)[0] == 413


def test_the_access_log_has_a_line_a_request_and_no_secret(edge: Edge, app: str, port: int) -> None:
    edge.apply("shop", site(manifest(port), {"api": [app]}))
    before = len(edge.log("shop").read_text().splitlines())
    header, cookie, query = SECRETS
    ask(port, f"/orders?token={query}", headers={"Authorization": f"Bearer {header}", "Cookie": f"session={cookie}"})
    ask(port, "/orders")
    lines = [json.loads(line) for line in edge.log("shop").read_text().splitlines()[before:]]
    assert [(line["request"]["method"], line["request"]["uri"], line["status"]) for line in lines] == [
        ("GET", "/orders", 200)
    ] * 2
    assert all(line["duration"] > 0 for line in lines)
    assert not any(secret in edge.log("shop").read_text() for secret in SECRETS)


def test_what_the_edge_says_about_itself_has_no_secret_either(edge: Edge, port: int) -> None:
    edge.apply("shop", site(manifest(port, patience=0.1), {"api": ["127.0.0.1:9"]}))
    header, cookie, query = SECRETS
    answer = ask(port, f"/?token={query}", headers={"Authorization": f"Bearer {header}", "Cookie": f"session={cookie}"})
    assert answer[0] == 502

    def said(caddy: str) -> str:
        done = subprocess.run(["docker", "logs", f"{PROJECT}-{caddy}-1"], check=True, capture_output=True, text=True)
        return done.stdout + done.stderr

    until(lambda: "connection refused" in said("switch"))
    assert not [secret for secret in SECRETS if secret in said("switch") + said("entry")]


def test_a_site_that_is_refused_leaves_the_old_one_serving(edge: Edge, app: str, port: int) -> None:
    edge.apply("shop", site(manifest(port, hosts=["shop.test"]), {"api": [app]}))
    before = edge.site("shop")
    thief = site(manifest(free_port(), name="other", hosts=["shop.test"]), {"api": [app]})
    with pytest.raises(SlipwayError, match="refuses its new configuration and goes on with the one before") as refused:
        edge.apply("other", thief, {"api.key": b"x"})
    assert "ambiguous site definition: http://shop.test" in refused.value.details
    assert (edge.site("shop"), edge.site("other")) == (before, None)
    assert edge.agrees()
    assert ask(80, host="shop.test")[0] == ask(port)[0] == 200


def test_a_port_that_another_program_holds_takes_nothing_from_anybody(edge: Edge, app: str, port: int) -> None:
    edge.apply("shop", site(manifest(port), {"api": [app]}))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        for _ in range(5):
            with pytest.raises(
                SlipwayError, match=rf"cannot listen on 127\.0\.0\.1:{taken}: .*, process {os.getpid()}\."
            ):
                edge.apply("other", site(manifest(taken, name="other"), {"api": [app]}))
    assert edge.release("other") is None
    assert edge.agrees()
    assert ask(port)[0] == 200
    # Caddy would have left some behind.
    assert len(listeners(port)) == 1


# --- without losing a request -------------------------------------------------------------------------------------


def test_twenty_switches_cost_no_request_and_no_connection(edge: Edge, app: str, port: int) -> None:
    edge.apply("shop", site(manifest(port), {"api": [app]}))
    with Load(port) as load:
        for number in range(20):
            edge.apply("shop", site(manifest(port, release=f"{number:016x}"), {"api": [app]}))
            time.sleep(0.1)
    assert load.failures == []
    assert load.answers > 150
    assert load.connections == Load.CLIENTS
    assert edge.release("shop") == f"{19:016x}"
    assert edge.agrees()


def test_a_stream_and_a_slow_request_go_on_over_a_switch(edge: Edge, app: str, port: int) -> None:
    edge.apply("shop", site(manifest(port), {"api": [app]}))
    answers: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=lambda path=path: answers.update({path: ask(port, path)[2]}))
        for path in ("/events", "/slow")
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    started = time.monotonic()
    edge.apply("shop", site(manifest(port, release="f" * 16), {"api": [app]}))
    assert time.monotonic() - started < 1
    for thread in threads:
        thread.join()
    assert answers["/events"].endswith(b"data: 19\n\n")
    assert json.loads(answers["/slow"])["path"] == "/slow"


@pytest.fixture
def restartable() -> Iterator[tuple[str, str]]:
    """An application in a container with an address of its own: the container's name, and where it listens."""
    name = f"{PROJECT}-app"
    docker("network", "create", "--subnet=10.207.255.240/28", name)
    try:
        where = ("--network", name, "--ip", "10.207.255.242")
        docker("run", "--detach", "--name", name, *where, edge_image(), "respond", "--listen", ":8000", "here")
        yield name, "10.207.255.242:8000"
    finally:
        docker("rm", "--force", "--volumes", name)
        docker("network", "rm", name)


def test_an_application_that_restarts_keeps_requests_waiting_and_loses_none(
    edge: Edge, port: int, restartable: tuple[str, str]
) -> None:
    container, address = restartable
    edge.apply("shop", site(manifest(port, patience=10), {"api": [address]}))
    with Load(port) as load:
        docker("restart", container)
    assert load.failures == []
    assert load.answers > 20


def test_a_replica_that_is_gone_costs_no_request(edge: Edge, app: str, port: int) -> None:
    edge.apply("shop", site(manifest(port), {"api": [app, f"127.0.0.1:{free_port()}"]}))
    assert [ask(port)[0] for _ in range(20)] == [200] * 20


def test_a_switch_that_is_replaced_keeps_requests_waiting(running: Stack, edge: Edge, app: str, port: int) -> None:
    edge.apply("shop", site(manifest(port), {"api": [app]}))
    with Load(port) as load:
        docker("restart", f"{PROJECT}-switch-1")
    assert load.failures == []
    assert edge.agrees()


# --- maintenance --------------------------------------------------------------------------------------------------


def test_maintenance_answers_503_with_a_page_and_health_still_reaches_the_application(
    edge: Edge, app: str, port: int
) -> None:
    shop = manifest(port, hosts=["shop.test"])
    edge.apply("shop", site(shop, {"api": [app]}, CLOSED))
    ways: list[dict[str, Any]] = [
        {"port": port, "path": "/orders"},
        {"port": 80, "path": "/orders", "host": "shop.test"},
        {"port": port, "method": "POST", "body": b"x"},
    ]
    # What was there before may take a connection yet while it ends.
    until(lambda: all(ask(**way)[0] == 503 for way in ways), seconds=1)
    for way in ways:
        status, headers, body = ask(**way)
        assert (status, headers["retry-after"], headers["cache-control"]) == (503, "120", "no-store")
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert b"The database moves." in body
        assert body.rstrip().endswith(b"</html>")
    assert json.loads(ask(port, "/ready")[2])["path"] == "/ready"
    edge.apply("shop", site(shop, {"api": [app]}))
    until(lambda: ask(port, "/orders")[0] == 200, seconds=1)


def test_what_is_killed_comes_back_with_every_site(running: Stack, edge: Edge, app: str, port: int) -> None:
    edge.apply("shop", site(manifest(port), {"api": [app]}))
    for caddy in ("entry", "switch"):
        subprocess.run(["kill", "-9", docker("inspect", "-f", "{{.State.Pid}}", f"{PROJECT}-{caddy}-1")], check=True)
    until(lambda: ask(port)[0] == 200)
    assert edge.agrees()
