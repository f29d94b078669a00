"""The image, run the way the kit runs it: read-only, without capabilities, as uid 1001."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from backend_support import SECRET, Cluster, run_migrations, write_config

pytestmark = pytest.mark.docker

HARDENED = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp"]
PYTHON = "/usr/bin/python3.13"
MAX_SIZE = 95_000_000
"""Bytes unpacked that the image may have."""
MAX_PULLED = 32_000_000
"""Bytes that go over the network for it, gzipped."""


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=check)


@pytest.fixture(scope="session")
def image() -> str:
    reference = os.environ.get("SLIPWAY_BACKEND_IMAGE")
    if not reference:
        pytest.fail("SLIPWAY_BACKEND_IMAGE is not set; set it to the image to test.", pytrace=False)
    return reference


@pytest.fixture(scope="session")
def described(image: str) -> dict[str, Any]:
    return dict(json.loads(docker("image", "inspect", image).stdout)[0])


@pytest.fixture
def config(tmp_path: Path) -> list[str]:
    """Arguments that mount a valid configuration for the embedded database."""
    return mounted(tmp_path, "sqlite:////app/data/backend.db")


def mounted(root: Path, url: str) -> list[str]:
    """Arguments that mount a configuration, readable by uid 1001 and by no other."""
    write_config(root, url, name="image")
    for path in (root, *root.rglob("*")):
        os.chown(path, 1001, 1001)
        path.chmod(0o700 if path.is_dir() else 0o400)
    return [f"--volume={root}:/app/config:ro", "--env=SEMIONT_ROOT=/app/config", "--env=SEMIONT_ENV=image"]


@pytest.fixture
def volume() -> Iterator[str]:
    name = f"backend-tests-{uuid.uuid4().hex[:12]}"
    docker("volume", "create", name)
    yield f"--volume={name}:/app/data"
    docker("volume", "rm", "--force", name)


class Container:
    """A running backend, on a loopback port that Docker chose."""

    def __init__(self, image: str, arguments: list[str]) -> None:
        self.id = docker("run", "--detach", "--publish=127.0.0.1::4000", *HARDENED, *arguments, image).stdout.strip()
        published = docker("port", self.id, "4000/tcp").stdout.split()[0]
        self.port = int(published.rsplit(":", 1)[1])

    def get(self, path: str, token: str = "") -> tuple[int, Any]:
        deadline = time.monotonic() + 20
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())
            except (OSError, http.client.HTTPException):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            finally:
                connection.close()

    def state(self) -> dict[str, Any]:
        return dict(json.loads(docker("inspect", self.id).stdout)[0]["State"])


@pytest.fixture
def container(image: str, config: list[str], volume: str) -> Iterator[Container]:
    docker("run", "--rm", *HARDENED, *config, volume, image, "migrate", "up")
    running = Container(image, [*config, volume])
    yield running
    docker("rm", "--force", running.id)


def test_version_is_printed_without_configuration_and_is_the_one_of_the_label(
    image: str, described: dict[str, Any]
) -> None:
    printed = docker("run", "--rm", *HARDENED, image, "--version").stdout.strip()

    assert printed
    assert described["Config"]["Labels"]["org.opencontainers.image.version"] == printed


def test_the_image_describes_itself(described: dict[str, Any]) -> None:
    config = described["Config"]

    assert config["User"] == "1001:1001"
    assert config["WorkingDir"] == "/app"
    assert config["Entrypoint"] == ["/usr/local/bin/backend"]
    assert config["Cmd"] == ["serve"]
    assert config["ExposedPorts"] == {"4000/tcp": {}}
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][:2] == ["CMD", PYTHON]
    assert config["Labels"]["org.opencontainers.image.title"] == "backend"


def test_an_image_of_the_kit_tells_the_commit_and_the_time_it_was_made_of(described: dict[str, Any]) -> None:
    labels = described["Config"]["Labels"]
    if "org.slipway.inputs" not in labels:
        pytest.skip("This image was not built by the kit, which is what fills these labels.")
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    assert datetime.fromisoformat(labels["org.opencontainers.image.created"]).tzinfo is not None


def test_the_image_is_small(described: dict[str, Any]) -> None:
    assert described["Size"] <= MAX_SIZE


def test_the_image_is_small_to_pull(image: str) -> None:
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
        done = subprocess.run(["gzip", "-c"], stdin=saving.stdout, capture_output=True, timeout=120, check=True)

    assert len(done.stdout) <= MAX_PULLED


@pytest.mark.parametrize(
    "program", ["/bin/sh", "/bin/bash", "/usr/bin/apt-get", "/usr/bin/dpkg", "/usr/bin/curl", "pip"]
)
def test_there_is_no_shell_and_no_package_manager(image: str, program: str) -> None:
    done = docker("run", "--rm", "--entrypoint", program, image, check=False)

    assert done.returncode == 127


def test_it_serves_read_only_and_without_capabilities(container: Container) -> None:
    assert container.get("/api/health")[1]["status"] == "ok"
    assert container.get("/api/ready")[0] == 200


def test_it_runs_as_uid_1001_and_can_write_to_its_volumes_only(image: str) -> None:
    probe = """
import os
print(os.getuid(), os.getgid())
for path in ("/app/data", "/app/uploads", "/tmp", "/app", "/etc", "/usr/local/lib/python3.13/dist-packages/backend"):
    print(path, os.access(path, os.W_OK))
"""
    done = docker("run", "--rm", "--cap-drop=ALL", "--entrypoint", PYTHON, image, "-c", probe)

    assert done.stdout.splitlines() == [
        "1001 1001",
        "/app/data True",
        "/app/uploads True",
        "/tmp True",  # noqa: S108 - names the directory, makes nothing there
        "/app False",
        "/etc False",
        "/usr/local/lib/python3.13/dist-packages/backend False",
    ]


def test_what_a_server_may_need_later_can_be_imported(image: str) -> None:
    probe = """
import ssl, zoneinfo, sqlite3, bz2, lzma, zlib, hashlib, uuid, ctypes, socket, asyncio, uvloop, httptools, asyncpg
import unicodedata, decimal, multiprocessing, concurrent.futures
assert len(ssl.create_default_context().get_ca_certs()) > 50
print(zoneinfo.ZoneInfo("Europe/Vienna"))
"""
    assert docker("run", "--rm", *HARDENED, "--entrypoint", PYTHON, image, "-c", probe).stdout == "Europe/Vienna\n"


def test_docker_finds_it_healthy(container: Container) -> None:
    deadline = time.monotonic() + 20
    while container.state()["Health"]["Status"] == "starting" and time.monotonic() < deadline:
        time.sleep(0.2)

    assert container.state()["Health"]["Status"] == "healthy", container.state()["Health"]


def test_a_stop_ends_with_exit_code_0(container: Container) -> None:
    container.get("/api/health")

    docker("stop", "--time=20", container.id)

    assert container.state()["ExitCode"] == 0


def test_an_operator_gets_a_token_from_inside(container: Container) -> None:
    container.get("/api/health")
    token = docker("exec", container.id, "backend", "token").stdout.strip()

    status, answer = container.get("/api/status", token)

    assert (status, answer["revision"]) == (200, "0002")


def test_no_secret_is_in_what_docker_tells(container: Container) -> None:
    container.get("/api/ready")

    assert SECRET not in docker("inspect", container.id).stdout
    logs = docker("logs", container.id)
    assert SECRET not in logs.stdout + logs.stderr


def test_migrations_run_in_the_image(image: str, config: list[str], volume: str) -> None:
    def migrate(verb: str) -> str:
        return docker("run", "--rm", *HARDENED, *config, volume, image, "migrate", verb).stdout

    assert migrate("status") == "none\n"
    assert migrate("plan").splitlines() == ["0001 Create documents.", "0002 Record who created a document."]
    migrate("up")
    assert migrate("plan") == ""
    assert migrate("status") == "0002\n"
    migrate("down")
    assert migrate("status") == "0001\n"


def test_docker_looks_often_while_it_starts(described: dict[str, Any]) -> None:
    assert described["Config"]["Healthcheck"]["StartInterval"] == 250_000_000  # nanoseconds


def backup(image: str, arguments: list[str], verb: str, given: bytes = b"") -> bytes:
    done = subprocess.run(
        ["docker", "run", "--rm", "--interactive", *HARDENED, *arguments, image, "backup", verb],
        input=given,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_the_embedded_database_is_saved_and_put_back_beside_the_container_that_serves(
    image: str, container: Container, config: list[str], volume: str
) -> None:
    container.get("/api/ready")
    arguments = [*config, volume]
    rows = {"alembic_version": 1, "documents": 0, "schema_support": 1}

    saved = backup(image, arguments, "create")
    assert json.loads(backup(image, arguments, "verify", saved)) == rows
    assert json.loads(backup(image, arguments, "count")) == rows
    assert backup(image, arguments, "restore", saved) == b"restored\n"
    assert container.get("/api/ready")[0] == 200


def test_a_postgresql_database_is_saved_and_put_back(image: str, tmp_path: Path, cluster: Cluster) -> None:
    """The cluster's server may be older than the image's programs."""
    url = cluster.new_database()
    run_migrations(url)
    arguments = ["--network=host", *mounted(tmp_path, url)]
    rows = {"alembic_version": 1, "documents": 0, "schema_support": 1}

    saved = backup(image, arguments, "create")
    assert saved.startswith(b"PGDMP")
    assert json.loads(backup(image, arguments, "verify", saved)) == rows
    cluster.execute("DROP TABLE documents", url.rsplit("/", 1)[1])
    assert backup(image, arguments, "restore", saved) == b"restored\n"
    assert json.loads(backup(image, arguments, "count")) == rows


def refusal(image: str, *arguments: str) -> str:
    done = docker("run", "--rm", *HARDENED, *arguments, image, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return str(json.loads(line)["message"])


def test_without_configuration_it_says_what_is_missing(image: str, tmp_path: Path, config: list[str]) -> None:
    assert refusal(image).startswith("SEMIONT_ROOT is not set.")
    assert refusal(image, "--env=SEMIONT_ROOT=/app/config", "--env=SEMIONT_ENV=image").startswith(
        "There is no /app/config/semiont.json."
    )
    assert '"prod" in /app/config/environments (there are: image)' in refusal(image, *config, "--env=SEMIONT_ENV=prod")


def test_a_file_of_root_s_alone_is_told_with_mode_and_uid(image: str, tmp_path: Path, config: list[str]) -> None:
    secret = tmp_path / "environments" / "image.json"
    os.chown(secret, 0, 0)
    secret.chmod(0o600)

    assert "image.json has mode 0600 and owner 0:0, and this process is uid 1001." in refusal(image, *config)
