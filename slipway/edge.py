"""The edge: the host's switch point and public entry, a Caddy that this module tells where traffic goes.

    /srv/slipway/edge/              0700 root; a stack (`slipway.stack`), so `docker compose` works in it
        Caddyfile                   what is the host's: addresses, ports, logs; imports every site
        sites/<name>.caddy          what is an environment's: written here, its first line names the release
        sites/_unknown.caddy        what answers for names that no site has, where the public entry is open at all
        certificates/<name>/        0400: what `own` certificates and private ACME servers need
        logs/<name>.log             access log: JSON, one line a request, no header and no query string
        run/admin.sock              Caddy's admin API

A change is a reload: Caddy reads everything anew, refuses it whole or takes it over whole, keeps its sockets open
and lets the requests that it has begun go on under the old configuration for as long as they take.
Source: Caddy 2.6, https://caddyserver.com/docs/api.
"""

from __future__ import annotations

import html
import http.client
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from slipway.contract import Service, Tls
from slipway.daemon import UnixConnection
from slipway.errors import SlipwayError
from slipway.release import Manifest
from slipway.store import ROOT, hold

MOUNT = "/etc/caddy"
"""Where the container sees the edge's folder."""
CERTIFICATES = "edge"
"""The folder of a release that holds what `tls` needs as files."""
PATIENCE = 30.0
"""Seconds that Caddy may take to answer its admin API."""
TRY_AGAIN = "50ms"
"""Between two tries to reach an application that does not accept connections: the longest gap that it costs."""
KEEP_ALIVE = "4s"
"""How long an idle connection to an application is used again: shorter than the five seconds after which usual
servers close it, since a request on a connection that is being closed would be lost."""
SIT_OUT = "2s"
"""How long a replica that could not be reached gets no request, where there are others."""

_RELEASE = re.compile(r"# release ([0-9a-f]+)\n")
_PUBLIC = re.compile(r"^(https?)://[^:\s]", re.MULTILINE)
_SIZE = re.compile(r"([0-9]+) ?([kMG]i?)?B", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}

Upstreams = Mapping[str, Sequence[str]]
"""Service -> where its replicas listen: `address:port`."""


class Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    """An environment is closed for a while. `since` is a time for people, `retry_after` seconds for programs."""

    since: str
    by: str
    reason: str
    retry_after: int


def size(text: str) -> int:
    """The bytes of a size such as `16MB` or `512KiB`. Raises ValueError for anything else."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _UNITS[(match[2] or "").lower()]


# --- The text of a site -------------------------------------------------------------------------------------------


def site(manifest: Manifest, upstreams: Upstreams, maintenance: Maintenance | None = None) -> str:
    """Lay out the site file of a release: every service that has a port, on loopback and under its public names.

    In maintenance everything answers 503 with a page, but for each service's own health path. Values are taken as
    they are: `slipway.inventory` has refused whatever could mean something else in a Caddyfile.
    """
    services = {name: spec for name, spec in manifest.services.items() if spec.port is not None}
    head = f"# release {manifest.id}\n# Written by slipway, which writes it anew at the next deploy.\n"
    blocks = [_snippet(manifest, name, spec, upstreams[name], maintenance) for name, spec in services.items()]
    blocks += [_loopback(manifest, name, spec) for name, spec in services.items()]
    for host, names in _hosts(services).items():
        blocks += _public(manifest, host, {name: services[name] for name in names})
    return "\n".join([head, *blocks])


def _hosts(services: Mapping[str, Service]) -> dict[str, list[str]]:
    """Public name -> the services behind it."""
    found: dict[str, list[str]] = {}
    for name, spec in services.items():
        for host in spec.route.hosts:
            found.setdefault(host, []).append(name)
    return found


def _snippet(
    manifest: Manifest, name: str, spec: Service, upstreams: Sequence[str], maintenance: Maintenance | None
) -> str:
    """What is done with a request to this service, whichever way it came in."""
    inner = _proxy(spec, upstreams) if maintenance is None else _closed(spec, upstreams, maintenance)
    return _block(f"({_reference(manifest, name)})", inner)


def _proxy(spec: Service, upstreams: Sequence[str]) -> list[str]:
    route = spec.route
    limit = size(route.max_body)
    length = "{header.Content-Length}"
    several = [f"fail_duration {SIT_OUT}"] if len(upstreams) > 1 else []
    transport = [
        "dial_timeout 1s",
        f"response_header_timeout {_seconds(route.answer_timeout)}",
        f"keepalive {KEEP_ALIVE}",
    ]
    options = [
        "lb_policy round_robin",
        f"lb_try_duration {_seconds(route.patience)}",
        f"lb_try_interval {TRY_AGAIN}",
        *several,
        *_lines("transport http", transport),
    ]
    return [
        # Before a byte of it is passed on. What comes without a length is counted, and ends in the entry's own 413.
        f'@large expression `{length} != "" && int({length}) > {limit}`',
        "respond @large 413",
        *_lines("request_body", [f"max_size {limit}"]),
        *_lines(f"reverse_proxy {' '.join(upstreams)}", options),
    ]


def _closed(spec: Service, upstreams: Sequence[str], maintenance: Maintenance) -> list[str]:
    answer = [
        f"header Retry-After {maintenance.retry_after}",
        "header Cache-Control no-store",
        'header Content-Type "text/html; charset=utf-8"',
        f"respond `{page(maintenance)}` 503",
    ]
    health = _lines(f"handle {spec.health.path.partition('?')[0]}", _proxy(spec, upstreams)) if spec.health else []
    return [*health, *_lines("handle", answer)]


def _loopback(manifest: Manifest, name: str, spec: Service) -> str:
    return _block(
        f"http://:{spec.host_port}", ["bind 127.0.0.1", *_entry(manifest), f"import {_reference(manifest, name)}"]
    )


def _public(manifest: Manifest, host: str, services: Mapping[str, Service]) -> Iterator[str]:
    """The public entry of one name. Services that share it have the same `tls` and `hsts`."""
    first, spec = next(iter(services.items()))
    routes = list(_routes(manifest, services))
    if spec.route.tls is None:
        yield _block(f"http://{host}", [*_entry(manifest), *routes])
        return
    yield _block(f"http://{host}", [*_entry(manifest), "redir https://{host}{uri} 308"])
    hsts = [f'header Strict-Transport-Security "max-age={spec.route.hsts:.0f}"'] if spec.route.hsts else []
    folder = f"{MOUNT}/certificates/{manifest.name}/{first}"
    yield _block(f"https://{host}", [*_entry(manifest), *_tls(spec.route.tls, folder), *hsts, *routes])


def _tls(tls: Tls, files: str) -> list[str]:
    """`files` is the path of the service's certificates in the container, without their ending."""
    match tls.mode:
        case "own":
            return [f"tls {files}.crt {files}.key"]
        case "internal":
            return ["tls internal"]
        case "acme":
            issuer = [
                *([f"dir {tls.directory}"] if tls.directory else []),
                *([f"email {tls.email}"] if tls.email else []),
                *([f"trusted_roots {files}.ca"] if tls.ca else []),
            ]
            # Without a server named, Caddy's own two, of which one may be down.
            if not tls.directory:
                return [f"tls {tls.email}"] if tls.email else []
            return _lines("tls", _lines("issuer acme", issuer))


def _routes(manifest: Manifest, services: Mapping[str, Service]) -> Iterator[str]:
    """Each path to its service, the longest pattern first; what no service takes is not found."""
    pairs = [(pattern, name) for name, spec in services.items() for pattern in spec.route.paths]
    for pattern, name in sorted(pairs, key=lambda pair: (-len(pair[0]), pair[0])):
        yield from _lines(f"handle {pattern}", [f"import {_reference(manifest, name)}"])
    if not any(pattern == "/*" for pattern, _ in pairs):
        yield from _lines("handle", ["respond 404"])


def _entry(manifest: Manifest) -> list[str]:
    # The release stands in what Caddy loads, so that a release that changes nothing but a certificate is loaded too.
    return [f"import entry {manifest.name}", f"vars release {manifest.id}"]


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


class Admin:
    """Caddy's admin API on its socket; a question takes milliseconds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, text: str) -> None:
        """Take over a main Caddyfile, whole or not at all. Raises :class:`SlipwayError` with Caddy's own words."""
        self._ask("POST", "/load", text)

    def agrees(self, text: str) -> bool:
        """Whether what is loaded is what the main Caddyfile `text` and all that it imports say now."""
        return bool(self._ask("POST", "/adapt", text)["result"] == self._ask("GET", "/config/"))

    def _ask(self, method: str, path: str, text: str = "") -> Any:
        connection = UnixConnection(self._path, PATIENCE)
        try:
            # Caddy takes questions without an origin alone: no browser can be made to ask.
            headers = {"Content-Type": "text/caddyfile", "Host": ""}
            connection.request(method, path, body=text.encode(), headers=headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                f"The edge does not answer ({error}).", "Start it with playbooks/edge.yml, and run this again."
            ) from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise SlipwayError(
                "The edge refuses its new configuration and goes on with the one before.",
                "Correct what it names.",
                details=_said(body),
            )
        return json.loads(body) if body else None


class UnreachableError(SlipwayError):
    """Nobody answers on the admin socket: the edge is stopped, or was never started."""


class Edge:
    """The edge of this host."""

    def __init__(self, root: Path = ROOT) -> None:
        self._folder = root / "edge"
        self._main = self._folder / "Caddyfile"
        self._sites = self._folder / "sites"
        self._admin = Admin(self._folder / "run" / "admin.sock")

    def exists(self) -> bool:
        """Whether the stack was deployed here."""
        return self._main.is_file()

    def release(self, name: str) -> str | None:
        """The release that the environment's site sends traffic to."""
        match = _RELEASE.match(self.text(name) or "")
        return match[1] if match else None

    def text(self, name: str) -> str | None:
        """The environment's site file as it is."""
        return (_read(self._site(name)) or b"").decode() or None

    def answering(self, port: int) -> str | None:
        """The environment that the edge answers for on this loopback port, or None."""
        for path in self._sites.glob("[a-z]*.caddy"):
            if f"http://:{port} {{" in path.read_text():
                return path.stem
        return None

    def log(self, name: str) -> Path:
        """The environment's access log."""
        return self._folder / "logs" / f"{name}.log"

    def apply(self, name: str, text: str, certificates: Mapping[str, bytes] | None = None) -> None:
        """Make `text` the site of an environment, and let the edge load it.

        `certificates` are the files that its `tls` names, as :func:`certificates` finds them in a release folder.
        When the edge refuses the site, or does not answer, the files before are put back and the error is raised.
        """
        if not self.exists():
            raise SlipwayError("There is no edge on this host.", "Run playbooks/edge.yml for it.")
        folder = self._certificates(name)
        gone = dict.fromkeys(folder.iterdir() if folder.is_dir() else [])
        wanted = {folder / file: content for file, content in (certificates or {}).items()}
        with hold(self._folder), _replaced({**gone, **wanted, self._site(name): text.encode()}):
            self._load()

    def remove(self, name: str) -> None:
        """Take an environment out of the edge, which may be stopped. Not being there is fine."""
        if not self.exists():
            return
        folder = self._certificates(name)
        files = [self._site(name), *(folder.iterdir() if folder.is_dir() else [])]
        with hold(self._folder):
            if any(file.exists() for file in files):
                with _replaced(dict.fromkeys(files)):
                    self._load(may_be_stopped=True)
            with suppress(FileNotFoundError):
                folder.rmdir()
            for log in self.log(name).parent.glob(f"{name}*.log*"):
                if re.fullmatch(rf"{name}(-\d{{4}}-[\dT.-]+)?\.log(\.gz)?", log.name):
                    log.unlink()

    def agrees(self) -> bool:
        """Whether the edge runs what its files say."""
        return self._admin.agrees(self._main.read_text())

    def _load(self, *, may_be_stopped: bool = False) -> None:
        sites = [path.read_text() for path in self._sites.glob("[a-z]*.caddy")]
        with _replaced({self._sites / "_unknown.caddy": _unknown(sites).encode() or None}):
            try:
                self._admin.load(self._main.read_text())
            except UnreachableError:
                if not may_be_stopped:
                    raise

    def _site(self, name: str) -> Path:
        return self._sites / f"{name}.caddy"

    def _certificates(self, name: str) -> Path:
        return self._folder / "certificates" / name


def certificates(release: Path) -> dict[str, bytes]:
    """The files in the release folder `release` that its `tls` needs, for :meth:`Edge.apply`."""
    folder = release / CERTIFICATES
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def _unknown(sites: Sequence[str]) -> str:
    """What answers for unknown names on the public ports that the `sites` open; empty when they open none.

    Caddy itself would give them an empty 200.
    """
    schemes = {scheme for text in sites for scheme in _PUBLIC.findall(text)}
    return "\n".join(_block(f"{scheme}://", ["respond 404"]) for scheme in sorted(schemes))


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
