"""A small application with migrations and backups, which does what its environment tells it to.

It prints its whole configuration when it starts, secret and all, as applications do. Its database is two files on
its volume: `schema`, the revision, and `rows`, a line for each row.

    BEHAVIOUR  never ready | unhealthy | slow | wrong version | crashes | crashes later | fails later |
             unhealthy later
    AFTER      seconds from its start until `later`: 3 to a crash, 1 to a failure
    MIGRATION  fails | hangs | hangs once | unsafe | down fails | down hangs
    BACKUP     fails | hangs | broken | restore fails | restore fails once | restore hangs

`/` and every path that is not named tells the state, and so does `/health`, which alone stays as it is when the
application `fails later`.
"""

import contextlib
import fcntl
import gzip
import http.server
import json
import os
import pathlib
import signal
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator

DATA = pathlib.Path("/app/data")
SCHEMA = DATA / "schema"
ROWS = DATA / "rows"
REVISIONS = os.environ["REVISIONS"].split()
BEHAVIOUR = os.environ.get("BEHAVIOUR", "")
AFTER = float(os.environ.get("AFTER", "3" if BEHAVIOUR == "crashes later" else "1"))
MIGRATION = os.environ.get("MIGRATION", "")
BACKUP = os.environ.get("BACKUP", "")
STARTED = time.monotonic()
CONFIG = pathlib.Path("/app/config/app.json").read_text()
QUIET = 0.25
"""Seconds without a request after which it ends: what came before the last answer said so may still be on its way."""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


# --- migrate and backup -------------------------------------------------------------------------------------------


def migrate(verb: str, *arguments: str) -> None:
    if MIGRATION == "alone":
        lock = (DATA / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("another one is at work")
        # So that another one that was started with it meets it.
        time.sleep(1)
    at = SCHEMA.read_text() if SCHEMA.exists() else "none"
    if at not in ("none", *REVISIONS):
        sys.exit(f"Can't locate revision {at}")
    pending = REVISIONS[REVISIONS.index(at) + 1 :] if at in REVISIONS else REVISIONS
    if verb == "status":
        say(at)
    elif verb == "plan":
        say("\n".join(pending))
    elif verb == "sql":
        say("\n".join(sql(revision) for revision in pending))
    elif verb == "down":
        down(at, *arguments)
    elif pending:
        say(f"migrating with {CONFIG}")
        if MIGRATION == "fails":
            sys.exit("column shop.price does not exist")
        if MIGRATION == "hangs" or (MIGRATION == "hangs once" and not (DATA / "hung").exists()):
            (DATA / "hung").touch()
            time.sleep(60)
        SCHEMA.write_text(pending[-1])


def sql(revision: str) -> str:
    if revision == REVISIONS[0]:
        step = "CREATE TABLE rows (id INTEGER PRIMARY KEY, title TEXT NOT NULL)"
    elif MIGRATION == "unsafe":
        step = "ALTER TABLE rows DROP COLUMN title"
    else:
        step = "ALTER TABLE rows ADD COLUMN author TEXT"
    return f"-- {revision}\n{step};\nUPDATE alembic_version SET version_num='{revision}';"


def down(at: str, to: str) -> None:
    if MIGRATION == "down hangs":
        time.sleep(60)
    if MIGRATION == "down fails" or at == "none" or to not in ("none", *REVISIONS[: REVISIONS.index(at) + 1]):
        sys.exit(f"There is no way from {at} down to {to}")
    put(SCHEMA, to.encode() if to != "none" else None)


def backup(verb: str) -> None:
    if BACKUP in ("hangs", f"{verb} hangs"):
        time.sleep(60)
    if BACKUP in ("fails", f"{verb} fails"):
        sys.exit(f"cannot {verb}: {CONFIG}")
    if f"{verb} fails once" == BACKUP and not (DATA / "failed").exists():
        (DATA / "failed").touch()
        sys.exit(f"cannot {verb}: {CONFIG}")
    if verb == "create":
        files = {path.name: path.read_text() if path.exists() else None for path in (SCHEMA, ROWS)}
        packed = gzip.compress(json.dumps(files).encode())
        sys.stdout.buffer.write(packed[: len(packed) // 2] if BACKUP == "broken" else packed)
    elif verb == "anonymise":
        put(ROWS, b"somebody\n" * len(ROWS.read_text().splitlines()))
    elif verb == "count":
        say(counted(ROWS.read_text() if ROWS.exists() else ""))
    else:
        try:
            files = json.loads(gzip.decompress(sys.stdin.buffer.read()))
        except (EOFError, OSError, ValueError) as error:
            sys.exit(f"not a backup: {error}")
        if verb == "status":
            say(files["schema"] or "none")
        elif verb == "restore":
            for path in (ROWS, SCHEMA):
                put(path, files[path.name].encode() if files[path.name] is not None else None)
        else:
            say(counted(files["rows"] or ""))


def counted(rows: str) -> str:
    return json.dumps({"rows": len(rows.splitlines())})


def put(path: pathlib.Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        beside = path.with_name(f".{path.name}")
        beside.write_bytes(content)
        beside.rename(path)


# --- serve --------------------------------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Ends as a good application does: takes no new connection, and finishes what it is doing."""

    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("", 8000), Handler)
        self.ending = threading.Event()
        self._running = 0
        self._last = time.monotonic()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self._last = time.monotonic()

    def end(self, *_: object) -> None:
        self.ending.set()
        # In a thread: the loop to end is what the signal has interrupted.
        threading.Thread(target=self.shutdown).start()

    def finish(self) -> None:
        self.socket.close()
        ended = time.monotonic()
        while self._running or time.monotonic() - max(ended, self._last) < QUIET:
            time.sleep(0.01)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One write for each answer, header and body: two cost 40 ms on a connection that is kept.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        with self.server.request():
            if path != "/health" and BEHAVIOUR == "fails later" and time.monotonic() - STARTED > AFTER:
                self.reply(500, b"connection to the shop lost")
            elif path == "/fail":
                self.reply(500, b"asked to fail")
            elif path == "/slow":
                time.sleep(float(urllib.parse.parse_qs(query)["seconds"][0]))
                self.reply(200, b"at last")
            elif path == "/events":
                self.events()
            elif path in ("/note", "/rows"):
                file = DATA / path[1:]
                self.reply(200, file.read_bytes() if file.exists() else b"")
            else:
                self.state()

    def do_PUT(self) -> None:
        """Write the note."""
        with self.server.request():
            (DATA / "note").write_bytes(self.body())
            self.reply(204, b"")

    def do_POST(self) -> None:
        """Append a row."""
        with self.server.request():
            with ROWS.open("ab") as rows:
                rows.write(self.body() + b"\n")
            self.reply(201, b"")

    def state(self) -> None:
        ready = BEHAVIOUR != "never ready" and (BEHAVIOUR != "slow" or time.monotonic() - STARTED > 2)
        # A test puts this file there to take the database away, and removes it to give it back.
        ready = ready and not (DATA / "gone").exists()
        # The same for one version alone, which then is not ready on one host of several.
        ready = ready and not (DATA / f"not-{os.environ['VERSION']}").exists()
        version = "0.0" if BEHAVIOUR == "wrong version" else os.environ["VERSION"]
        unhealthy = BEHAVIOUR == "unhealthy" or (BEHAVIOUR == "unhealthy later" and time.monotonic() - STARTED > AFTER)
        status = "ready" if ready and not unhealthy else f"not ready, my configuration is {CONFIG}"
        self.reply(200 if ready else 503, json.dumps({"status": status, "version": version}).encode())

    def events(self) -> None:
        """Server-sent events, one a second, until the application ends."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        number = 0
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(f"id: {number}\ndata: {os.environ['VERSION']}\n\n".encode())
                self.wfile.flush()
                number += 1
                if self.server.ending.wait(1):
                    return

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        if self.server.ending.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def crash() -> None:
    sys.stderr.write("the shop went away\n")
    sys.stderr.flush()
    os._exit(1)


def serve() -> None:
    say(f"starting with {CONFIG}")
    if BEHAVIOUR == "crashes":
        # What a program prints when it dies need not be text.
        sys.stdout.buffer.write(b"core: \xff\xfe\n")
        sys.exit("no such module: shop")
    if BEHAVIOUR == "crashes later":
        timer = threading.Timer(AFTER, crash)
        timer.daemon = True
        timer.start()
    server = Server()
    signal.signal(signal.SIGTERM, server.end)
    server.serve_forever(poll_interval=0.05)
    server.finish()


if sys.argv[1] == "serve":
    serve()
elif sys.argv[1] == "migrate":
    migrate(*sys.argv[2:])
else:
    backup(*sys.argv[2:])
