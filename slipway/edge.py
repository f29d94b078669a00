"""The edge: the host's switch point and public entry, two Caddys that this module tells where traffic goes.

The **entry** listens: ports, names, certificates, limits of a request, access logs. The **switch** behind it knows
where the releases are. A deploy changes the switch alone, by a graceful reload: it takes its new configuration over
whole or refuses it whole, and requests that it has begun go on under the old one for as long as they take. A reload
closes idle connections too, and a client that is just sending on one would lose that request; so clients' connections
end at the entry, which stays as it is, and each of its requests reaches the switch on a connection of its own.

    /srv/slipway/edge/              0700 root; a stack (`slipway.stack`), so `docker compose` works in it
        {entry,switch}.caddyfile    what is the host's; both import every site
        entry/<name>.caddy          an environment's names, paths, certificates and limits
        entry/_unknown.caddy        what answers for names that no site has, where the public entry is open at all
        switch/<name>.caddy         where an environment's services are; its first line names the release
        front/<name>.json           on a host of the edge tier alone: what it balances (`slipway.front`)
        certificates/<name>/        0400: what `own` certificates and private ACME servers need
        logs/<name>.log             access log: JSON, one line a request, no header and no query string
        run/                        sockets: the admin API of both, and the switch's own, one for each service

A host of the **edge tier** has the same two: there the switch knows where the app hosts are instead of where a release
is, and an app host's entry offers its services to the tier on a private address instead of to the public.

Source: Caddy 2.6, https://caddyserver.com/docs/api.
"""

from __future__ import annotations

import errno
import html
import http.client
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from slipway.contract import Service, Tls
from slipway.daemon import UnixConnection
from slipway.errors import SlipwayError
from slipway.ports import listener
from slipway.release import CERTIFICATES, Manifest
from slipway.store import BEGUN_FILE, ROOT, hold

MOUNT = "/etc/caddy"
"""Where the container sees the edge's folder."""
SOCKETS = "/run/caddy"
"""Where both containers see its folder `run`."""
PATIENCE = 30.0
"""Seconds that Caddy may take to answer its admin API."""
TRY_AGAIN = "50ms"
"""Between two tries to reach an application that does not accept connections: the longest gap that it costs."""
KEEP_ALIVE = "4s"
"""How long an idle connection to an application is used again: shorter than the five seconds after which usual
servers close it, since a request on a connection that is being closed would be lost."""
DIAL = 1.0
"""Seconds that connecting may take."""
SIT_OUT_AT_ONCE = 0.25
"""Seconds in which another replica of a release that is watched is tried before the release before is."""
SIT_OUT = "2s"
"""How long a replica that could not be reached gets no request, where there are others."""

SWITCH_PATIENCE = "60s"
"""How long a request waits at the entry for a switch that is being replaced, as the template of the entry says too."""
FORWARDED = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")

_HEAD = "# Written by slipway, which writes it anew at the next deploy.\n"
_RELEASE = re.compile(r"# release ([0-9a-f]+)\n")
_TIER = re.compile(r"^# tier (\S+) for (\S.*)$", re.MULTILINE)
_PUBLIC = re.compile(r"^(https?)://[^:\s]", re.MULTILINE)

Upstreams = Mapping[str, Sequence[str]]
"""Service -> where its replicas listen: `address:port`."""


class Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    """An environment is closed for a while. `since` is a time for people, `retry_after` is in seconds."""

    since: str
    by: str
    reason: str
    retry_after: int


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """The edge tier that stands before this app host."""

    address: str
    """Of this host: where the tier, and nobody else, is answered."""
    edges: tuple[str, ...]
    """The addresses that its hosts come from."""


# --- The text of a site -------------------------------------------------------------------------------------------


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """An environment's part of both configurations."""

    entry: str
    switch: str


def site(
    manifest: Manifest,
    upstreams: Upstreams,
    maintenance: Maintenance | None = None,
    tier: Tier | None = None,
    behind: Upstreams | None = None,
) -> Site:
    """Lay out the site of a release: every service that has a port, on loopback and under its public names.

    `behind` is where the release before listens while this one is watched: it gets the requests that this one does
    not even accept. Where there is an edge tier, it has the names, and this host answers it on its private address. In
    maintenance everything answers 503 with a page, but for each service's own health path. Values are taken as they
    are: `slipway.inventory` has refused whatever could mean something else in a Caddyfile.
    """
    services = {name: spec for name, spec in manifest.services.items() if spec.port is not None}
    blocks = [
        _switched(manifest, spec, upstreams[name], maintenance, (behind or {}).get(name, ()))
        for name, spec in services.items()
    ]
    return Site(
        entry="\n".join([_HEAD, *_entry(manifest, services, tier)]),
        switch="\n".join([f"# release {manifest.id}\n{_HEAD}", *blocks]),
    )


def balanced(manifest: Manifest, hosts: Sequence[str]) -> Site:
    """Lay out the site of the edge tier: the names of every service that has some, over these app hosts.

    Of `manifest` only the name, the contract and the fingerprints of certificates count. Without hosts everything is
    answered with 503.
    """
    services = {name: spec for name, spec in manifest.services.items() if spec.public}
    blocks = [
        _block(
            f"http://:{spec.host_port}", [_socket(spec), *_over([f"{host}:{spec.host_port}" for host in hosts], spec)]
        )
        for spec in services.values()
    ]
    return Site(
        entry="\n".join([_HEAD, *_entry(manifest, services)]),
        switch="\n".join([_HEAD, *blocks]),
    )


def _socket(spec: Service) -> str:
    return f"bind unix/{SOCKETS}/{spec.host_port}.sock"


def _switched(
    manifest: Manifest,
    spec: Service,
    upstreams: Sequence[str],
    maintenance: Maintenance | None,
    behind: Sequence[str],
) -> str:
    """What the switch does with a request to this service, whichever way it came in."""
    where = [
        _socket(spec),
        # Two releases that are reached alike are still two: Caddy passes over a configuration that it has already.
        f"vars release {manifest.id}",
    ]
    if maintenance is not None:
        inner = _closed(spec, upstreams, maintenance)
    elif behind:
        inner = _watched(spec, upstreams, behind)
    else:
        inner = _proxy(spec, upstreams)
    # The switch listens on sockets alone. A port stands here because a site needs an address of its own.
    return _block(f"http://:{spec.host_port}", [*where, *inner])


def _proxy(spec: Service, upstreams: Sequence[str]) -> list[str]:
    return _to(upstreams, spec, KEEP_ALIVE)


def _watched(spec: Service, upstreams: Sequence[str], behind: Sequence[str]) -> list[str]:
    """To a release that is watched, and to the one before where that one takes no connection any more.

    A request that has reached it is never asked twice: nobody knows what became of it there. One that waited for it
    would be lost when the way back has the switch load its configuration anew.
    """
    at_once = _to(upstreams, spec, KEEP_ALIVE, patience=SIT_OUT_AT_ONCE if len(upstreams) > 1 else 0)
    matcher = "@unreached vars_regexp {err.message} ^dial"
    return [*at_once, *_lines("handle_errors", [matcher, *_lines("handle @unreached", _proxy(spec, behind))])]


def _over(upstreams: Sequence[str], spec: Service) -> list[str]:
    """What the tier does with a request: to a host that answers its checks, on a connection for this request alone.

    On one that is kept a request would be lost with a host that vanished; connecting to another costs nobody anything.
    """
    if not upstreams:
        return ["respond 503"]
    checks = []
    if spec.health:
        checks = [
            f"health_uri {spec.health.path}",
            f"health_interval {_seconds(spec.health.interval)}",
            f"health_timeout {_seconds(spec.health.timeout)}",
            f"health_status {spec.health.status}",
            # As of a client on the edge host itself.
            *_lines("health_headers", ["X-Forwarded-For 127.0.0.1", "X-Forwarded-Proto http"]),
        ]
    return _to(upstreams, spec, "off", checks)


def _to(
    upstreams: Sequence[str],
    spec: Service,
    keepalive: str,
    checks: Sequence[str] = (),
    patience: float | None = None,
) -> list[str]:
    several = [f"fail_duration {SIT_OUT}"] if len(upstreams) > 1 else []
    transport = [
        f"dial_timeout {DIAL:g}s",
        f"response_header_timeout {_seconds(spec.route.answer_timeout)}",
        f"keepalive {keepalive}",
    ]
    options = [
        "import forwarded",
        "lb_policy round_robin",
        f"lb_try_duration {_seconds(spec.route.patience if patience is None else patience)}",
        f"lb_try_interval {TRY_AGAIN}",
        *several,
        *checks,
        *_lines("transport http", transport),
    ]
    return _lines(f"reverse_proxy {' '.join(upstreams)}", options)


def _closed(spec: Service, upstreams: Sequence[str], maintenance: Maintenance) -> list[str]:
    answer = [
        f"header Retry-After {maintenance.retry_after}",
        "header Cache-Control no-store",
        'header Content-Type "text/html; charset=utf-8"',
        f"respond `{page(maintenance)}` 503",
    ]
    health = _lines(f"handle {spec.health.path.partition('?')[0]}", _proxy(spec, upstreams)) if spec.health else []
    return [*health, *_lines("handle", answer)]


def _entry(manifest: Manifest, services: Mapping[str, Service], tier: Tier | None = None) -> Iterator[str]:
    for name, spec in services.items():
        yield _accepted(manifest, name, spec)
    for name, spec in services.items():
        address = f"http://:{spec.host_port}"
        yield _block(address, ["bind 127.0.0.1", _site(manifest), f"import {_reference(manifest, name)}"])
    if tier:
        yield from (_offered(manifest, spec, tier) for spec in services.values() if spec.public)
        return
    hosts: dict[str, dict[str, Service]] = {}
    for name, spec in services.items():
        for host in spec.route.hosts:
            hosts.setdefault(host, {})[name] = spec
    for host, behind in hosts.items():
        yield from _public(manifest, host, behind)


def _accepted(manifest: Manifest, name: str, spec: Service) -> str:
    """What the entry does with a request to this service, before the switch sees it."""
    return _block(f"({_reference(manifest, name)})", [*_limited(spec), f"import switch {spec.host_port}"])


def _offered(manifest: Manifest, spec: Service, tier: Tier) -> str:
    """Where the hosts of the edge tier reach this service, and nobody else does.

    Who the client is was seen by them. Their health checks, which ask for the address instead of a name, are not worth
    a line of the access log; no client's request does that, since the tier knows names alone.
    """
    checks = []
    if spec.health:
        checked = [f"host {tier.address}", f"path {spec.health.path.partition('?')[0]}"]
        checks = [*_lines("@check", checked), "skip_log @check"]
    switch = [
        *(f"header_up {field} {{http.request.header.{field}}}" for field in FORWARDED),
        f"lb_try_duration {SWITCH_PATIENCE}",
        f"lb_try_interval {TRY_AGAIN}",
        *_lines("transport http", ["keepalive off"]),
    ]
    inner = [
        f"bind {tier.address}",
        _site(manifest),
        f"@stranger not remote_ip {' '.join(tier.edges)}",
        "respond @stranger 403",
        *checks,
        *_limited(spec),
        *_lines(f"reverse_proxy unix/{SOCKETS}/{spec.host_port}.sock", switch),
    ]
    return _block(f"http://:{spec.host_port}", inner)


def _limited(spec: Service) -> list[str]:
    limit = spec.route.max_body_bytes
    length = "{header.Content-Length}"
    return [
        # Before a byte of it is passed on. What comes without a length is counted, and ends in the site's own 413.
        f'@large expression `{length} != "" && int({length}) > {limit}`',
        "respond @large 413",
        *_lines("request_body", [f"max_size {limit}"]),
    ]


def _public(manifest: Manifest, host: str, services: Mapping[str, Service]) -> Iterator[str]:
    """The public entry of one name. Services that share it have the same `tls` and `hsts`."""
    first, spec = next(iter(services.items()))
    routes = list(_routes(manifest, services))
    if spec.route.tls is None:
        yield _block(f"http://{host}", [_site(manifest), *routes])
        return
    yield _block(f"http://{host}", [_site(manifest), "redir https://{host}{uri} 308"])
    hsts = [f'header Strict-Transport-Security "max-age={spec.route.hsts:.0f}"'] if spec.route.hsts else []
    yield _block(f"https://{host}", [_site(manifest), *_tls(manifest, first, spec.route.tls), *hsts, *routes])


def _tls(manifest: Manifest, service: str, tls: Tls) -> list[str]:
    file = f"{MOUNT}/certificates/{manifest.name}/{service}"
    # The files keep their names when a certificate is renewed, so what tells the old from the new stands here too.
    renewed = [
        f"vars {path} {fingerprint[:16]}"
        for path, fingerprint in manifest.fingerprints.items()
        if path.startswith(f"{CERTIFICATES}/{service}.") and not path.endswith(".key")
    ]
    match tls:
        case Tls(mode="own"):
            return [f"tls {file}.crt {file}.key", *renewed]
        case Tls(mode="internal"):
            return ["tls internal"]
        case Tls(directory=""):
            # Caddy's own two servers, of which one may be down.
            return [f"tls {tls.email}"] if tls.email else []
        case _:
            email = [f"email {tls.email}"] if tls.email else []
            roots = [f"trusted_roots {file}.ca"] if tls.ca else []
            return [*_lines("tls", _lines("issuer acme", [f"dir {tls.directory}", *email, *roots])), *renewed]


def _routes(manifest: Manifest, services: Mapping[str, Service]) -> Iterator[str]:
    """Each path to its service, the longest pattern first; what no service takes is not found."""
    pairs = [(pattern, name) for name, spec in services.items() for pattern in spec.route.paths]
    for pattern, name in sorted(pairs, key=lambda pair: (-len(pair[0]), pair[0])):
        yield from _lines(f"handle {pattern}", [f"import {_reference(manifest, name)}"])
    if not any(pattern == "/*" for pattern, _ in pairs):
        yield from _lines("handle", ["respond 404"])


def _site(manifest: Manifest) -> str:
    return f"import site {manifest.name}"


def _reference(manifest: Manifest, service: str) -> str:
    return f"{manifest.name}/{service}"


def _block(head: str, inner: Sequence[str]) -> str:
    return "\n".join(_lines(head, inner)) + "\n"


def _lines(head: str, inner: Sequence[str]) -> list[str]:
    return [f"{head} {{", *(f"\t{line}" for line in inner), "}"]


def _seconds(number: float) -> str:
    return f"{number:g}s"


# --- The page of an environment in maintenance ----------------------------------------------------------------------

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Down for maintenance</title>
<body style="margin: 0; font: 1rem/1.6 system-ui, sans-serif; color: #1f2933; background: #f4f5f7">
<main style="max-width: 32rem; margin: 20vh auto 0; padding: 0 1.5rem">
<h1 style="margin: 0 0 .5rem; font-size: 1.75rem; line-height: 1.25; font-weight: 600">Down for maintenance</h1>
<p style="margin: 0 0 1.5rem">%REASON%</p>
<p style="margin: 0; padding-top: 1rem; border-top: 1px solid #cbd2d9; font-size: .875rem; color: #52606d">
Since %SINCE%. Please try again in %WHEN%.</p>
</main>
</body>
</html>"""


def page(maintenance: Maintenance) -> str:
    """The page that people see meanwhile: no script, no style of its own, nothing fetched from anywhere."""
    text = _PAGE
    fields = {
        "REASON": maintenance.reason or "We are working on it.",
        "SINCE": maintenance.since,
        "WHEN": _when(maintenance.retry_after),
    }
    for name, value in fields.items():
        text = text.replace(f"%{name}%", _literal(value))
    return text


def _literal(text: str) -> str:
    """Escape for HTML, and what would end or fill the text in a Caddyfile."""
    return html.escape(text).replace("`", "&#96;").replace("{", "&#123;").replace("}", "&#125;")


def _when(seconds: int) -> str:
    if seconds < 90:  # noqa: PLR2004 - up to here seconds read better
        return f"{seconds} seconds"
    return f"{round(seconds / 60)} minutes"


# --- What runs ------------------------------------------------------------------------------------------------------


class RefusedError(SlipwayError):
    """Caddy does not take a configuration over, and goes on with the one before."""


class UnreachableError(SlipwayError):
    """Nobody answers on the admin socket: the edge is stopped, or was never started."""


class Caddy:
    """One running Caddy: its main file, and the socket of its admin API. A question takes milliseconds.

    Methods raise :class:`RefusedError` with Caddy's own words, or :class:`UnreachableError`.
    """

    def __init__(self, main: Path, admin: Path) -> None:
        self._main = main
        self._admin = admin

    def agrees(self) -> bool:
        """Whether what is loaded is what the main file, and all that it imports, say now."""
        return bool(self._wanted() == self._loaded())

    def reload(self) -> bool:
        """Take the files over, whole or not at all, where they say something else. True when they did."""
        wanted, loaded = self._wanted(), self._loaded()
        if wanted == loaded:
            return False
        # Caddy 2.6 closes only some of the listeners that it has opened when another one turns out taken. The rest
        # would go on beside its own, and answer some of the requests by a configuration that it refused.
        for address in sorted(_listeners(wanted)):
            if not any(_overlap(address, other) for other in _listeners(loaded)):
                _need_free(address)
        self._ask("POST", "/load")
        return True

    def _wanted(self) -> Any:
        return self._ask("POST", "/adapt")["result"]

    def _loaded(self) -> Any:
        return self._ask("GET", "/config/")

    def _ask(self, method: str, path: str) -> Any:
        connection = UnixConnection(self._admin, PATIENCE)
        body = self._main.read_bytes() if method == "POST" else None
        try:
            # Caddy takes questions without a host alone: no browser can be made to ask.
            connection.request(method, path, body, {"Content-Type": "text/caddyfile", "Host": ""})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                f"The edge does not answer ({error}).", "Start it with playbooks/edge.yml, and run this again."
            ) from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise RefusedError(
                "The edge refuses its new configuration and goes on with the one before.",
                "Correct what it names below.",
                details=_said(answer),
            )
        return json.loads(answer) if answer else None


def _listeners(config: Any) -> set[str]:
    """The TCP addresses that a configuration, in Caddy's own JSON, listens on."""
    servers = ((config or {}).get("apps") or {}).get("http", {}).get("servers", {})
    return {address for server in servers.values() for address in server["listen"] if not address.startswith("unix/")}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _overlap(one: str, other: str) -> bool:
    """Whether one of two addresses that are listened on is in the way of the other."""
    hosts = {_host(one), _host(other)}
    return _port(one) == _port(other) and (len(hosts) == 1 or bool(hosts & {"", "0.0.0.0", "::"}))  # noqa: S104


def _need_free(address: str) -> None:
    host = _host(address)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, _port(address)))
            probe.listen()
        except OSError as error:
            holder = listener(_port(address)) if error.errno == errno.EADDRINUSE else None
            raise RefusedError(
                f"The edge cannot listen on {address}: {holder or error.strerror}.",
                "Free it, or declare another one; what was served is served on.",
            ) from error


class Edge:
    """The edge of this host."""

    def __init__(self, root: Path = ROOT) -> None:
        self._folder = root / "edge"
        run = self._folder / "run"
        # What is public first: it is what an environment may be refused for, and what goes before its socket does.
        self._caddys = [
            Caddy(self._folder / "entry.caddyfile", run / "entry.sock"),
            Caddy(self._folder / "switch.caddyfile", run / "switch.sock"),
        ]

    def exists(self) -> bool:
        """Whether the stack was deployed here."""
        return (self._folder / "switch.caddyfile").is_file()

    def started(self) -> None:
        """Wait for the stack, where its start was only begun. Raises what keeps it from running."""
        if (self._folder / BEGUN_FILE).exists():
            # Imported here because only a new host needs it.
            from slipway import stack  # noqa: PLC0415

            stack.started(self._folder)

    def release(self, name: str) -> str | None:
        """The release that the environment's site sends traffic to."""
        there = self.site(name)
        match = _RELEASE.match(there.switch) if there else None
        return match[1] if match else None

    def site(self, name: str) -> Site | None:
        """The environment's site as its files say."""
        entry, switch = (_read(path) for path in self._files(name))
        return Site(entry=entry.decode(), switch=switch.decode()) if entry is not None and switch is not None else None

    def tier(self) -> Tier | None:
        """The edge tier that stands before this host, as its main file says; None where there is none."""
        main = _read(self._folder / "entry.caddyfile") or b""
        match = _TIER.search(main.decode())
        return Tier(address=match[1], edges=tuple(match[2].split())) if match else None

    def answering(self, port: int) -> str | None:
        """The environment that the edge answers for on this loopback port, or None."""
        for path in _within(self._folder / "switch"):
            if f"http://:{port} {{" in path.read_text():
                return path.stem
        return None

    def front(self, name: str) -> Path:
        """What `slipway.front` knows of an environment that this host balances."""
        return self._folder / "front" / f"{name}.json"

    def log(self, name: str) -> Path:
        """The environment's access log."""
        return self._folder / "logs" / f"{name}.log"

    def apply(
        self,
        name: str,
        wanted: Site,
        certificates: Mapping[str, bytes] | None = None,
        beside: Mapping[Path, bytes] | None = None,
    ) -> None:
        """Make `wanted` the site of an environment, and let the edge load it.

        `certificates` are the files that its `tls` names, as :func:`certificates` finds them in a release folder;
        `beside` are further files that are written with the site, or not at all.
        When the edge refuses the site, or does not answer, the files before are put back and the error is raised.
        Caddy answers a moment before its old listener is closed: a request of the next few milliseconds may still be
        served by what was there before.
        """
        if not self.exists():
            raise SlipwayError("There is no edge on this host.", "Run playbooks/edge.yml for it.")
        entry, switch = self._files(name)
        folder = self._certificates(name)
        files: dict[Path, bytes | None] = {**dict.fromkeys(_within(folder)), **(beside or {})}
        files |= {folder / file: content for file, content in (certificates or {}).items()}
        with hold(self._folder):
            self._change({**files, entry: wanted.entry.encode(), switch: wanted.switch.encode()})

    def certificates(self, name: str) -> dict[str, bytes]:
        """The files that an environment's `tls` names, as they lie here."""
        return {path.name: path.read_bytes() for path in _within(self._certificates(name))}

    def hold(self, name: str) -> None:
        """Let requests for an environment wait at the entry, for a minute at most, until :meth:`apply` says where to.

        A request that waits at the switch could only ever reach the release that it was for when it came.
        """
        there = self.site(name)
        if there is None:
            return
        head = "".join(line for line in there.switch.splitlines(keepends=True) if line.startswith("#"))
        with hold(self._folder):
            self._change({self._files(name)[1]: head.encode()})

    def remove(self, name: str) -> None:
        """Take an environment out of the edge, which may be stopped. Not being there is fine.

        Its access log stays until the edge itself is removed: Caddy keeps it open, and would go on writing to a file
        that has no name any more if the environment came back.
        """
        if not self.exists():
            return
        folder = self._certificates(name)
        files = [*self._files(name), self.front(name), *_within(folder)]
        with hold(self._folder):
            self._change(dict.fromkeys(files), may_be_stopped=True)
            for gone in (folder, self.front(name).parent):
                # Others may have something in there.
                with suppress(OSError):
                    gone.rmdir()

    def agrees(self) -> bool:
        """Whether the edge runs what its files say. Raises :class:`UnreachableError` when it does not run."""
        try:
            return all(caddy.agrees() for caddy in self._caddys)
        except RefusedError:
            return False

    def _change(self, files: Mapping[Path, bytes | None], *, may_be_stopped: bool = False) -> None:
        """Write and load, both or neither."""
        try:
            with _replaced(files), _replaced({self._folder / "entry" / "_unknown.caddy": self._unknown(files)}):
                self._reload(may_be_stopped=may_be_stopped)
        except SlipwayError:
            # What one had taken over before the other refused goes back, with the files.
            with suppress(SlipwayError):
                self._reload()
            raise

    def _reload(self, *, may_be_stopped: bool = False) -> None:
        for caddy in self._caddys:
            try:
                caddy.reload()
            except UnreachableError:
                if not may_be_stopped:
                    raise

    def _unknown(self, files: Mapping[Path, bytes | None]) -> bytes | None:
        """What answers for unknown names on the public ports that sites open, where Caddy would give an empty 200."""
        there = {path: _read(path) for path in _within(self._folder / "entry") if path.name[0].isalpha()}
        texts = [text for path, text in {**there, **files}.items() if text and path.parent.name == "entry"]
        schemes = {scheme for text in texts for scheme in _PUBLIC.findall(text.decode())}
        return "\n".join(_block(f"{scheme}://", ["respond 404"]) for scheme in sorted(schemes)).encode() or None

    def _files(self, name: str) -> tuple[Path, Path]:
        return self._folder / "entry" / f"{name}.caddy", self._folder / "switch" / f"{name}.caddy"

    def _certificates(self, name: str) -> Path:
        return self._folder / "certificates" / name


def certificates(release: Path) -> dict[str, bytes]:
    """The files in the release folder `release` that its `tls` needs, for :meth:`Edge.apply`."""
    return {path.name: path.read_bytes() for path in _within(release / CERTIFICATES)}


def _within(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@contextmanager
def _replaced(files: Mapping[Path, bytes | None]) -> Iterator[None]:
    """Write these files, or remove those without content; put all back when what follows fails."""
    before = {path: _read(path) for path in files}
    try:
        for path, content in files.items():
            _put(path, content)
        yield
    except BaseException:
        for path, content in before.items():
            _put(path, content)
        raise


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _put(path: Path, content: bytes | None) -> None:
    """Replace a file in one step, synced, readable for root alone; without content, remove it."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fchmod(out.fileno(), 0o400)
            os.fsync(out.fileno())
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()
