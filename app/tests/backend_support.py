"""A backend process and a PostgreSQL of the tests' own, and how to talk to them."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import asyncpg  # type: ignore[import-untyped]
from backend.migrate import Migrations
from backend.tokens import mint

SECRET = "a-secret-that-only-these-tests-know-0123456789"


PASSWORD = "p:a/s@s%20w?rd#1"
"""What a password generator may come up with: every character that a URL gives a meaning to."""


INHERITED = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
"""What a process of the tests gets from the tests' own environment: where programs and modules are found."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"]["code"])


def free_port() -> int:
    """A loopback port that no one listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_config(root: Path, url: str, name: str = "test", **more: object) -> dict[str, str]:
    """Both files, and the environment variables that point to them."""
    (root / "environments").mkdir(exist_ok=True)
    (root / "semiont.json").write_text(json.dumps({"version": "1.0.0", "project": "tests"}))
    content = {"database": {"url": url}, "auth": {"jwtSecret": SECRET}, **more}
    (root / "environments" / f"{name}.json").write_text(json.dumps(content))
    return {"SEMIONT_ROOT": str(root), "SEMIONT_ENV": name}


def run_migrations(url: str) -> None:
    """Bring the schema to head."""

    async def run() -> None:
        migrations = Migrations(url)
        await migrations.up()
        await migrations.database.close()

    asyncio.run(run())


def command(*arguments: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `backend` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "backend", *arguments],
        env={**INHERITED, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Process:
    """`backend serve`, started and stopped like a container would be."""

    def __init__(self, config: dict[str, str], **environ: str) -> None:
        self.port = free_port()
        self.environ = {
            **INHERITED,
            "BACKEND_HOST": "127.0.0.1",
            "BACKEND_PORT": str(self.port),
            "BACKEND_DRAIN_SECONDS": "0",
            **config,
            **environ,
        }
        self.log_path = Path(config["SEMIONT_ROOT"]) / f"log-{self.port}"
        self.token = mint(SECRET, subject="tester", ttl=600)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def launch(self) -> None:
        """Start it without waiting for an answer."""
        with self.log_path.open("w") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "backend", "serve"], env=self.environ, stderr=log)

    def start(self) -> None:
        self.launch()
        deadline = time.monotonic() + 20
        while True:
            try:
                self.call("GET", "/api/health")
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise AssertionError(f"the backend did not start: {self.log}") from None
                time.sleep(0.02)
            else:
                return

    def call(
        self,
        method: str,
        path: str,
        body: bytes | str | dict[str, object] | None = None,
        *,
        token: str | None = "",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own, with a valid token unless given another or None."""
        sent = {"Connection": "close", **(headers or {})}
        if token is not None:
            sent["Authorization"] = f"Bearer {token or self.token}"
        if isinstance(body, dict):
            body = json.dumps(body)
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = 20) -> int:
        return self.process.wait(timeout)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()
        try:
            assert self.wait() == 0, self.log
        finally:
            self.kill()


class Cluster:
    """A PostgreSQL of this test run's own, on a loopback port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.count = 0

    def new_database(self) -> str:
        """An empty database; returns its URL."""
        self.count += 1
        name = f"test_{self.count}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://backend:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        async def run() -> None:
            connection = await asyncpg.connect(
                host="127.0.0.1", port=self.port, user="backend", password=PASSWORD, database=database
            )
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())
