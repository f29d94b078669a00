"""Backups by the image's own commands, in one-off containers on real Docker."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from slipway.backups import Backup, Backups, compare
from slipway.contract import Migrate
from slipway.errors import CommandError, PreflightError
from slipway.project import Project
from slipway.store import Store
from tests.engine.conftest import SECRET, Environment, docker

pytestmark = pytest.mark.docker


class Database:
    """The database of the service `app`, reached by the image of a release as the engine does it."""

    def __init__(self, environment: Environment, release: str) -> None:
        store = Store(environment.name, environment.root)
        manifest = store.manifest(release)
        migrate = manifest.services["app"].migrate
        assert migrate is not None
        self.migrate: Migrate = migrate
        self.project: Project = store.project(manifest)
        self.once = f"{self.project.name}-app-once"

    def command(self, verb: str) -> list[str]:
        return ["backup", verb]

    def create(self, out: BinaryIO) -> None:
        self.project.run_to("app", self.command("create"), self.migrate, out)

    def verify(self, source: BinaryIO) -> dict[str, int]:
        return self._rows(self.project.run_from("app", self.command("verify"), self.migrate, source))

    def count(self) -> dict[str, int]:
        return self._rows(self.project.run("app", self.command("count"), self.migrate))

    def restore(self, source: BinaryIO) -> None:
        self.project.run_from("app", self.command("restore"), self.migrate, source)

    def _rows(self, printed: str) -> dict[str, int]:
        rows: dict[str, int] = json.loads(printed)
        return rows

    def take(self, backups: Backups) -> Backup:
        return backups.take(release="r1", revision="0001", service="app", create=self.create, verify=self.verify)


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    return Backups(tmp_path)


@pytest.fixture
def staged(serving: Environment) -> Callable[..., Database]:
    """The database as a release reaches it that is staged with other behaviour and does not serve."""

    def stage(timeout: float = 600, **env: str) -> Database:
        migrate = {**serving.services("1.1")["app"]["migrate"], "timeout": timeout}
        release = serving.prepare("1.1", env=env, migrate=migrate)
        serving.of_run("stage", release=release)
        return Database(serving, release["manifest"]["id"])

    return stage


@pytest.fixture(autouse=True)
def nothing_left(serving: Environment, tmp_path: Path) -> Iterator[None]:
    """No one-off container, and nothing half-written."""
    yield
    assert [entry["Name"] for entry in serving.containers() if entry["Name"].endswith("-once")] == []
    assert list(tmp_path.glob("backups/.*")) == []


def append(environment: Environment, row: str) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{environment.port}/rows", data=row.encode(), method="POST")
    urllib.request.urlopen(request, timeout=2).close()


def test_a_backup_brings_back_what_was_there_when_it_was_taken(serving: Environment, backups: Backups) -> None:
    database = Database(serving, serving.current())
    for number in range(3):
        append(serving, f"row {number}")
    backup = database.take(backups)
    assert backup.rows == {"rows": 3}
    append(serving, "one more")
    assert [str(found) for found in compare(backup.rows, database.count())] == ["rows: 3 then, 4 now"]
    with backups.open(backup) as source:
        database.restore(source)
    assert compare(backup.rows, database.count()) == []
    assert (serving.volume() / "rows").read_text() == "row 0\nrow 1\nrow 2\n"


def test_a_backup_that_cannot_be_taken_is_told_without_secrets(
    staged: Callable[..., Database], backups: Backups
) -> None:
    with pytest.raises(CommandError, match="`backup create` ended with exit code 1") as error:
        staged(BACKUP="fails").take(backups)
    assert "cannot create: {" in error.value.details
    assert SECRET not in error.value.details
    assert backups.list() == []


def test_a_backup_that_cannot_be_restored_is_not_kept(staged: Callable[..., Database], backups: Backups) -> None:
    with pytest.raises(CommandError, match="`backup verify` ended with exit code 1") as error:
        staged(BACKUP="broken").take(backups)
    assert "not a backup: " in error.value.details
    assert backups.list() == []


def test_a_backup_that_hangs_is_ended_after_its_time_and_docker_logs_none_of_it(
    staged: Callable[..., Database], backups: Backups
) -> None:
    database = staged(timeout=4, BACKUP="hangs")
    said: list[BaseException] = []

    def take() -> None:
        try:
            database.take(backups)
        except CommandError as error:
            said.append(error)

    call = threading.Thread(target=take)
    call.start()
    while not docker("ps", "--quiet", "--filter", f"name=^{database.once}$"):
        assert call.is_alive(), "it ended before its container was seen"
    assert docker("inspect", "--format", "{{.HostConfig.LogConfig.Type}}", database.once) == "none"
    call.join()
    assert "`backup create` took longer than 4 seconds and was ended." in str(said)


def test_a_disk_that_fills_up_is_told_as_such(
    serving: Environment, staged: Callable[..., Database], tmp_path: Path
) -> None:
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    (serving.volume() / "rows").write_text(os.urandom(1_000_000).hex())
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tiny)], check=True)
    try:
        with pytest.raises(PreflightError, match="The disk is full: the backup could not be written"):
            staged().take(Backups(tiny))
        assert list((tiny / "backups").iterdir()) == []
    finally:
        subprocess.run(["umount", str(tiny)], check=True)
        (serving.volume() / "rows").unlink()
