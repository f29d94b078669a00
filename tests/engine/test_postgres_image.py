"""The image of PostgreSQL keeps the contract of the official one: what is set by POSTGRES_*, by _FILE, by scripts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import postgres
from tests.engine.conftest import PREFIX, docker

pytestmark = pytest.mark.long

SCRIPTS = {
    "1-table.sql": "CREATE TABLE seen (by text);",
    "2-executable.sh": """#!/bin/bash
psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --command "INSERT INTO seen VALUES ('2')"
""",
    "3-read-in.sh": 'psql_ <<< "INSERT INTO seen VALUES (\'3\')"; echo "PGDATA is $PGDATA" >&2\n',
    "5-other.txt": "not a script",
}


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    yield postgres.build()
    postgres.remove_images()


@pytest.fixture
def server(image: str) -> Iterator[postgres.Container]:
    container = postgres.Container(f"{PREFIX}postgres-alone", image)
    container.remove()
    yield container
    container.remove()


def run(image: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Start it where it will not come far."""
    return subprocess.run(
        ["docker", "run", "--rm", *options, image], check=False, capture_output=True, text=True, timeout=60
    )


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755 if "executable" in name else 0o644)
    for name, program in (("4-packed.sql.gz", "gzip"), ("4-packed.sql.xz", "xz"), ("4-packed.sql.zst", "zstd")):
        if (packer := subprocess.run(["which", program], capture_output=True, check=False)).returncode == 0:
            assert packer.stdout
            packed = subprocess.run(
                [program, "-c"],
                input=f"COPY seen FROM stdin;\n{program}\n\\.\n".encode(),
                capture_output=True,
                check=True,
            )
            (folder / name).write_bytes(packed.stdout)
    folder.chmod(0o755)
    return folder


def test_all_that_can_be_said_is_heard(server: postgres.Container, scripts: Path, tmp_path: Path) -> None:
    secret = 'it\'s a "secret" with \\ and $'
    (tmp_path / "password").write_text(f"{secret}\n")
    (tmp_path / "password").chmod(0o444)
    tmp_path.chmod(0o755)
    said = {
        "POSTGRES_PASSWORD_FILE": "/run/secrets/password",
        "POSTGRES_USER": "boss",
        "POSTGRES_DB": "shop",
        "POSTGRES_INITDB_ARGS": "--data-checksums --encoding=UTF8",
        "PGDATA": "/var/lib/postgresql/data/inner",
    }
    server.start(said, "-v", f"{tmp_path}:/run/secrets:ro", "-v", f"{scripts}:/docker-entrypoint-initdb.d:ro")
    packed = [path.suffixes[-1] for path in scripts.glob("4-*")]
    programs = {".gz": "gzip", ".xz": "xz", ".zst": "zstd"}
    assert server.psql("SELECT by FROM seen ORDER BY by", "shop", "boss").split() == [
        "2",
        "3",
        *sorted(programs[ending] for ending in packed),
    ]
    assert server.psql("SHOW data_directory", user="boss") == "/var/lib/postgresql/data/inner"
    assert server.psql("SHOW data_checksums", user="boss") == "on"
    assert server.psql("SELECT rolsuper FROM pg_roles WHERE rolname = 'boss'", user="boss") == "t"
    assert "5-other.txt is neither a script of a shell nor of SQL" in server.said()
    # From elsewhere, with the password alone.
    there = ["run", "--rm", f"--network=container:{server.name}", "--entrypoint", "psql"]
    ask = [server.image, "-h", "127.0.0.1", "-p", "5432", "-U", "boss", "-d", "shop", "-c", "SELECT 1"]
    assert "1 row" in docker(*there, "--env", f"PGPASSWORD={secret}", *ask)
    # Loopback is trusted, as in the official image; any other address has to know it.
    address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", server.name)
    elsewhere = [address if word == "127.0.0.1" else word for word in ask]
    assert "1 row" in docker("run", "--rm", "--env", f"PGPASSWORD={secret}", "--entrypoint", "psql", *elsewhere)
    assert "1 row" not in docker(
        "run", "--rm", "--env", "PGPASSWORD=wrong", "--entrypoint", "psql", *elsewhere, check=False
    )
    assert secret not in server.said()
    environment = docker("exec", "--user", "postgres", server.name, "cat", "/proc/1/environ")
    assert secret not in environment


def test_it_runs_as_999_and_its_data_is_nobody_elses(server: postgres.Container) -> None:
    server.start({"POSTGRES_PASSWORD": "a password"})
    assert docker("exec", server.name, "stat", "-c", "%u %g", "/proc/1") == "999 999"
    assert docker("exec", server.name, "stat", "-c", "%u %g %a", "/var/lib/postgresql/data") == "999 999 700"


def test_it_needs_no_root_no_capability_and_no_rootfs(server: postgres.Container) -> None:
    alone = ["--user=999:999", "--cap-drop=ALL", "--read-only", "--tmpfs=/tmp", "--security-opt=no-new-privileges"]
    server.start({"POSTGRES_PASSWORD": "a password"}, *alone, "--tmpfs=/run/postgresql:uid=999,gid=999,mode=2775")
    assert server.psql("SELECT 1") == "1"


def test_data_stays_and_scripts_run_once(server: postgres.Container, scripts: Path) -> None:
    volume = f"{server.name}-data"
    options = ["-v", f"{volume}:/var/lib/postgresql/data", "-v", f"{scripts}:/docker-entrypoint-initdb.d:ro"]
    try:
        server.start({"POSTGRES_PASSWORD": "a password"}, *options)
        rows = server.psql("SELECT count(*) FROM seen")
        server.remove()
        server.start({}, *options)
        assert server.psql("SELECT count(*) FROM seen") == rows
    finally:
        server.remove()
        docker("volume", "rm", "--force", volume)


def test_a_first_start_that_was_cut_off_is_begun_anew(server: postgres.Container, tmp_path: Path) -> None:
    volume = f"{server.name}-data"
    (tmp_path / "1-slow.sh").write_text('[ -e "$PGDATA/../slow" ] || sleep 60\npsql_ <<< "CREATE TABLE whole ()"\n')
    tmp_path.chmod(0o755)
    options = ["-v", f"{volume}:/var/lib/postgresql/data", "-v", f"{tmp_path}:/docker-entrypoint-initdb.d:ro"]
    try:
        docker("run", "--detach", "--name", server.name, "--env", "POSTGRES_PASSWORD=x", *options, server.image)
        deadline = time.monotonic() + postgres.PATIENCE
        while "Running" not in server.said():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        docker("kill", server.name)
        server.remove()
        (tmp_path / "1-slow.sh").write_text('psql_ <<< "CREATE TABLE whole ()"\n')
        server.start({"POSTGRES_PASSWORD": "x"}, *options)
        assert "The first start was cut off; it begins anew." in server.said()
        assert server.psql("SELECT count(*) FROM whole") == "0"
    finally:
        server.remove()
        docker("volume", "rm", "--force", volume)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "There is no password for the superuser postgres."),
        (
            ["-e", "POSTGRES_PASSWORD=a", "-e", "POSTGRES_PASSWORD_FILE=/b"],
            "Both POSTGRES_PASSWORD and POSTGRES_PASSWORD_",
        ),
        (["-e", "POSTGRES_PASSWORD=a", "-e", "POSTGRES_DB=a", "-e", "POSTGRES_DB_FILE=/b"], "Both POSTGRES_DB and"),
        (["-e", "POSTGRES_PASSWORD_FILE=/nowhere"], "POSTGRES_PASSWORD_FILE names /nowhere, which cannot be read."),
        (
            ["-e", "POSTGRES_PASSWORD=a", "--user=1234"],
            "PostgreSQL is to run as uid 1234, which this image does not know.",
        ),
        (["-e", "POSTGRES_PASSWORD=a", "-e", "PGDATA=/etc", "--user=999"], "/etc cannot be written to by uid 999."),
        (["-e", "POSTGRES_PASSWORD=a", "-e", "PGDATA=/var/lib/postgresql"], "holds files that are no cluster."),
    ],
)
def test_what_cannot_be_is_refused(image: str, options: list[str], sentence: str) -> None:
    done = run(image, *options)
    assert done.returncode == 1
    assert sentence in done.stderr


def test_data_of_another_major_version_is_refused(image: str, tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("15\n")
    done = run(image, "-v", f"{tmp_path}:/var/lib/postgresql/data")
    assert done.returncode == 1
    assert "/var/lib/postgresql/data holds data of PostgreSQL 15, and this is PostgreSQL 17." in done.stderr


def test_other_programs_run_as_they_are(image: str) -> None:
    for program in ("pgbackrest", "openssl"):
        done = subprocess.run(
            ["docker", "run", "--rm", image, program, "version"], check=True, capture_output=True, text=True
        )
        assert program in done.stdout.lower()
