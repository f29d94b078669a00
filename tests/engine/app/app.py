"""A small application with migrations, which does what BEHAVIOUR and MIGRATION tell it to.

It prints its whole configuration when it starts, secret and all, as applications do.
"""

import http.server
import json
import os
import pathlib
import signal
import sys
import time

DATA = pathlib.Path("/app/data")
REVISIONS = os.environ["REVISIONS"].split()
BEHAVIOUR = os.environ.get("BEHAVIOUR", "")
MIGRATION = os.environ.get("MIGRATION", "")
STARTED = time.monotonic()
CONFIG = pathlib.Path("/app/config/app.json").read_text()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def migrate(verb: str) -> None:
    schema = DATA / "schema"
    at = schema.read_text() if schema.exists() else "none"
    if at not in ("none", *REVISIONS):
        sys.exit(f"Can't locate revision {at}")
    pending = REVISIONS[REVISIONS.index(at) + 1 :] if at in REVISIONS else REVISIONS
    if verb == "status":
        say(at)
    elif verb == "plan":
        say("\n".join(pending))
    elif pending:
        say(f"migrating with {CONFIG}")
        if MIGRATION == "fails":
            sys.exit("column shop.price does not exist")
        if MIGRATION == "hangs" or (MIGRATION == "hangs once" and not (DATA / "hung").exists()):
            (DATA / "hung").touch()
            time.sleep(60)
        schema.write_text(pending[-1])


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/note":
            self.reply(200, (DATA / "note").read_bytes())
            return
        ready = BEHAVIOUR != "never ready" and (BEHAVIOUR != "slow" or time.monotonic() - STARTED > 2)
        version = "0.0" if BEHAVIOUR == "wrong version" else os.environ["VERSION"]
        state = {"status": "ready" if ready else f"not ready, my configuration is {CONFIG}", "version": version}
        self.reply(200 if ready else 503, json.dumps(state).encode())

    def do_PUT(self) -> None:
        (DATA / "note").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.reply(204, b"")

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def serve() -> None:
    say(f"starting with {CONFIG}")
    if BEHAVIOUR == "crashes":
        # What a program prints when it dies need not be text.
        sys.stdout.buffer.write(b"core: \xff\xfe\n")
        sys.exit("no such module: shop")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()


if sys.argv[1] == "serve":
    serve()
else:
    migrate(sys.argv[2])
