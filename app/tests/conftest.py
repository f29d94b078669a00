"""What the backend's tests share: configuration directories, real databases, and a real process to talk to."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

# Where pytest imports by path (importlib mode), nothing puts this directory on the path.
sys.path.insert(0, str(Path(__file__).parent))

from backend_support import PASSWORD, Cluster, Process, free_port, run_migrations, write_config


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "docker: needs a Docker engine and the backend's image")


def _postgres_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.fail("There is no PostgreSQL here to test with: apt-get install postgresql", pytrace=False)
    return found[-1].parent


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Started once per run, as a user that is not root: PostgreSQL refuses to run as root."""
    programs = _postgres_programs()
    home = Path(tempfile.mkdtemp(prefix="backend-tests-postgres-"))
    user: str | None = None
    if os.geteuid() == 0:
        user = "postgres"
        account = pwd.getpwnam(user)
        os.chown(home, account.pw_uid, account.pw_gid)
    password_file = home / "password"
    password_file.write_text(PASSWORD)
    password_file.chmod(0o644)
    port = free_port()
    # The cluster's own directory as working directory: the one of the tests may be closed to that user.
    run: list[str | Path] = [
        programs / "initdb",
        "-D",
        home / "data",
        "-U",
        "backend",
        "-A",
        "scram-sha-256",
        "--no-sync",
    ]
    subprocess.run([*run, "--pwfile", password_file], check=True, user=user, cwd=home, capture_output=True)
    options = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={home}"]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", home / "data", "-p", str(port), *options],
            user=user,
            cwd=home,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                Cluster(port).execute("SELECT 1")
                break
            except (OSError, asyncpg.PostgresError):
                if time.monotonic() > deadline or server.poll() is not None:
                    pytest.fail(f"PostgreSQL did not start: {(home / 'log').read_text()}", pytrace=False)
                time.sleep(0.05)
        yield Cluster(port)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=20)
        shutil.rmtree(home)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/backend.db"
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.new_database()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A running backend on a migrated database of each kind, one for all tests of a module."""
    home = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        url = f"sqlite:///{home}/backend.db"
    else:
        cluster: Cluster = request.getfixturevalue("cluster")
        url = cluster.new_database()
    run_migrations(url)
    with Process(write_config(home, url), LOG_LEVEL="http") as process:
        yield process


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a backend of the test's own, on a given URL or on a migrated SQLite file; ended after the test."""
    running: list[Process] = []

    def run(url: str | None = None, **environ: str) -> Process:
        if url is None:
            url = f"sqlite:///{tmp_path}/backend.db"
            run_migrations(url)
        process = Process(write_config(tmp_path, url), **environ)
        running.append(process)
        process.start()
        return process

    yield run
    for process in running:
        process.kill()
