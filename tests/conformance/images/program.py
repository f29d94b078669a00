"""A program that behaves like one of four real ones, as SYSTEM says, with what makes each hard to deploy.

    clearsplit   /health is 200 whether there is a database or not
    todo         /health is always 200, the body tells; its database speaks TLS alone
    semiont      /api/health is always 200, the body tells; SIGTERM is ignored; reads two files as user 1001
    neuronip     /health is 503 when unhealthy; root; neither curl nor a shell in its image
    peer         another program of the same application: the first thing that it does is to ask the one that it needs

BEHAVIOUR: crashes | unhealthy
"""

import asyncio
import http.server
import json
import os
import pathlib
import re
import signal
import sys
import urllib.request
from typing import Any

import asyncpg

Answer = tuple[int, Any]

SYSTEM, VERSION, BEHAVIOUR = (os.environ[name] for name in ("SYSTEM", "VERSION", "BEHAVIOUR"))
TOLD: dict[str, Any] = {}
"""What it found when it started."""


async def ask(dsn: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=2)
    try:
        await connection.fetchval("SELECT count(*) FROM items")
    finally:
        await connection.close()


def database(dsn: str) -> bool:
    if BEHAVIOUR == "unhealthy":
        return False
    try:
        asyncio.run(ask(dsn))
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    return True


def clearsplit(path: str) -> Answer:
    return (200, {"status": "ok"}) if path == "/health" else (200, {"version": VERSION})


def todo(path: str) -> Answer:
    if path == "/metrics":
        return 200, "# TYPE requests counter\nrequests 1\n"
    if path != "/health":
        return 200, {"version": VERSION}
    up = database(alchemy())
    return 200, {"status": "healthy" if up else "unhealthy", "database": "connected" if up else "disconnected"}


def alchemy() -> str:
    url = os.environ["DATABASE_URL"]
    if not url.startswith("postgresql+asyncpg://"):
        sys.exit("DATABASE_URL does not begin with postgresql+asyncpg://")
    return url.replace("+asyncpg", "").replace("?ssl=", "?sslmode=")


def semiont(path: str) -> Answer:
    if path != "/api/health":
        return 200, {"version": VERSION, **TOLD}
    up = database(TOLD["settings"]["services"]["database"]["url"])
    body = {"status": "operational", "version": VERSION, "database": "connected" if up else "disconnected"}
    return 200, {**body, "environment": os.environ["SEMIONT_ENV"], "timestamp": "now"}


def read_semiont() -> None:
    root = pathlib.Path(os.environ["SEMIONT_ROOT"])
    try:
        project = json.loads((root / "semiont.json").read_text())
        text = (root / "environments" / f"{os.environ['SEMIONT_ENV']}.json").read_text()
    except OSError as error:
        sys.exit(f"Error: {error}")
    if len(os.environ["JWT_SECRET"]) < 32:
        sys.exit("JWT_SECRET must have 32 characters")
    settings = json.loads(re.sub(r"\$\{(\w+)\}", lambda match: os.environ[match[1]], text))
    unknown = settings.keys() - {"name", "platform", "services", "site", "app", "env", "deployment"}
    if unknown or "version" not in project:
        sys.exit(f"Invalid configuration: {unknown}")
    pathlib.Path("/app/apps/backend/logs/app.log").write_text("started\n")
    TOLD["settings"] = settings


def neuronip(path: str) -> Answer:
    if path != "/health":
        return 200, {"version": VERSION, "uid": os.getuid()}
    host, port, user, password, name = (
        os.environ[f"DB_{part}"] for part in ("HOST", "PORT", "USER", "PASSWORD", "NAME")
    )
    up = database(f"postgresql://{user}:{password}@{host}:{port}/{name}?sslmode=disable")
    return (200, {"status": "warning"}) if up else (503, {"status": "unhealthy"})


def peer(path: str) -> Answer:
    return 200, {"version": VERSION, **TOLD}


def reach(variable: str, path: str) -> None:
    """Ask the program that it needs; where that does not answer well, there is nothing to start for."""
    if url := os.environ.get(variable):
        with urllib.request.urlopen(f"{url}{path}", timeout=5) as answer:
            TOLD[variable] = json.load(answer)


class Handler(http.server.BaseHTTPRequestHandler):
    wbufsize = -1

    def do_GET(self) -> None:
        status, body = globals()[SYSTEM](self.path)
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


if BEHAVIOUR == "crashes":
    sys.exit("Error: Cannot find module 'shop'")
if SYSTEM == "semiont":
    read_semiont()
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
reach("AUTH_SERVER_URL", "/health")
reach("BACKEND_URL", "/health")
Server(("", int(os.environ["LISTEN"])), Handler).serve_forever()
