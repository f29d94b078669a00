"""The archive of a bundled database on the engine of this machine: its log and its backups go there, and lead back."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from slipway.daemon import LABEL_PROJECT
from slipway.database import wire
from slipway.release import LABEL_NAME, LABEL_STACK
from tests.engine import archive_targets, postgres
from tests.engine.conftest import PREFIX, RefusedError, docker, free_port
from tests.engine.test_database import Database

NAME = f"{PREFIX}db"
PASSWORD = "never-to-be-seen-archive-0123456789"
OTHER = "never-to-be-seen-other-0123456789"


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    yield postgres.build()
    postgres.remove_images()


class Archived(Database):
    """A database with an archive."""

    def __init__(self, root: Path, image: str, target: dict[str, Any]) -> None:
        super().__init__(root, image, free_port())
        self.archive = {"password": PASSWORD, **target}

    def ask(self, **change: Any) -> dict[str, Any]:
        return super().ask(**{"archive": self.archive, **change})

    def sql(self, statement: str) -> list[list[Any]]:
        with self.as_("owner") as owner:
            found: list[list[Any]] = owner.ask(statement)
        return found

    def note(self, number: int) -> None:
        """A row at a second of its own."""
        self.sql("CREATE TABLE IF NOT EXISTS noted (n int)")
        self.sql(f"INSERT INTO noted VALUES ({number})")  # noqa: S608 - a number

    def notes(self) -> list[int]:
        return sorted(row[0] for row in self.sql("SELECT n FROM noted"))

    def restore(self, to: str, **change: Any) -> dict[str, Any]:
        return self.call("database-restore", {"name": NAME, "to": to, **change})

    def backup(self) -> dict[str, Any]:
        return self.call("database-backup", {"name": NAME})

    def remove(self) -> None:
        docker("rm", "--force", f"slipway-{NAME}-database-restore", check=False)
        super().ask(state="absent", purge=True)
        assert docker("volume", "ls", "--quiet", "--filter", f"name={NAME}") == ""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.fixture
def database(tmp_path: Path, image: str, target: Path) -> Iterator[Archived]:
    """One whose archive is a folder."""
    one = Archived(tmp_path / "root", image, {"url": str(target)})
    yield one
    one.remove()


def log_of(container: str) -> str:
    done = subprocess.run(
        ["docker", "logs", container], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout


def switch(database: Archived) -> None:
    """Have the log go on in another segment, and the one before archived."""
    docker("exec", database.container, "psql", "--command", "SELECT pg_switch_wal()")


def between() -> str:
    """A second in which nothing else happens."""
    time.sleep(1.5)
    now = datetime.now(UTC)
    time.sleep(1.5)
    return now.isoformat(timespec="milliseconds")


@pytest.mark.long
def test_one_goes_back_to_the_second_and_then_again(database: Archived) -> None:
    database.ask(archive=None)
    with pytest.raises(RefusedError, match="Nothing is archived of the database"):
        database.backup()
    assert "a segment of its log arrives there" in database.ask()["msg"]
    assert not database.ask()["changed"]
    assert database.backup()["kind"] == "full"
    database.note(1)
    first = between()
    database.note(2)
    assert "goes back to" in database.restore(first, check=True)["msg"]
    assert database.notes() == [1, 2]

    answer = database.restore(first)
    assert answer["kept"] == f"{NAME}-database-17"
    assert database.notes() == [1]
    # What is declared is still there, archiving goes on, and the password is today's.
    assert not database.ask()["changed"]

    database.note(3)
    second = between()
    database.note(4)
    assert database.backup()["kind"] == "incr"
    again = database.restore(second)
    assert again["kept"] != answer["kept"]
    assert database.notes() == [1, 3]
    # From before the first way back on, too.
    assert database.restore(first)["changed"]
    assert database.notes() == [1]
    assert database.restore("latest")["changed"]
    assert database.notes() == [1]
    with pytest.raises(RefusedError, match=r"cannot go back to 2020-01-01\. One can go back to any second from 20"):
        database.restore("2020-01-01")
    told = database.slipway("db", "backups")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "One can go back to any second from" in told.stdout

    looked_at = {
        "what the engine says": "".join(database.said),
        "docker inspect": docker("inspect", database.container),
        "the log of the server": log_of(database.container),
        "the Compose file": (database.folder / "compose.yml").read_text() + (database.folder / ".env").read_text(),
        "what is noted": (database.folder / "archive.json").read_text(),
    }
    assert not [where for where, text in looked_at.items() if "never-to-be-seen" in text]
    conf = (database.folder / "conf/pgbackrest.conf").stat()
    assert (conf.st_mode & 0o777, conf.st_uid) == (0o400, 999)
    assert (database.folder.parent.parent / "target" / f"{NAME}-wal").stat().st_mode & 0o777 == 0o700


@pytest.mark.long
def test_no_command_line_shows_a_secret(database: Archived) -> None:
    seen: list[str] = []
    end = threading.Event()

    def watch() -> None:
        while not end.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    if b"never-to-be-seen" in (line := path.read_bytes()):
                        seen.append(line.decode(errors="replace"))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        database.ask()
        database.backup()
        database.restore("latest")
    finally:
        end.set()
        watching.join()
    assert seen == []


@pytest.mark.long
def test_a_password_that_is_wrong_is_one_sentence_and_the_database_goes_on(database: Archived) -> None:
    database.ask()
    database.backup()
    database.note(1)
    with pytest.raises(RefusedError, match="cannot be read with backup_password") as refused:
        database.ask(archive={**database.archive, "password": OTHER})
    assert OTHER not in refused.value.details
    for act in (database.backup, lambda: database.restore("latest")):
        with pytest.raises(RefusedError, match="cannot be read with backup_password"):
            act()
    assert database.notes() == [1]
    assert "a segment of its log arrives there" in database.ask()["msg"]
    with pytest.raises(RefusedError, match="There is no backup_password, or a very short one"):
        database.ask(archive={**database.archive, "password": "short"})


@pytest.mark.long
def test_a_target_that_is_gone_or_damaged_is_said_and_never_a_success(database: Archived, target: Path) -> None:
    database.ask()
    database.backup()
    database.note(1)
    repository = target / f"{NAME}-wal"
    shutil.chown(repository, 0, 0)
    with pytest.raises(RefusedError, match="Nothing can be written"):
        database.backup()
    switch(database)
    deadline = time.monotonic() + 30
    while not (warnings := database.ask()["warnings"]):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert warnings[0].startswith("Archiving fails: nothing has arrived since")
    assert "terminating any other active server processes" not in log_of(database.container)
    assert database.notes() == [1]
    shutil.chown(repository, 999, 999)

    for bundle in (repository / "backup/main").glob("2*/bundle/*"):
        content = bytearray(bundle.read_bytes())
        content[len(content) // 2] ^= 0xFF
        bundle.write_bytes(content)
    with pytest.raises(RefusedError, match=r"damaged|cannot be read with backup_password"):
        database.restore("latest")
    assert database.notes() == [1]
    assert not (database.folder / "restoring.json").exists()


@pytest.mark.long
def test_an_archive_of_another_server_is_left_alone_and_can_be_restored_here(database: Archived) -> None:
    database.ask()
    database.backup()
    database.note(1)
    docker("exec", database.container, "pgbackrest", "--stanza=main", "check")
    # The host is lost with all that is on it.
    Database.ask(database, state="absent", purge=True)
    with pytest.raises(RefusedError, match="is of another database server"):
        database.ask()
    database.restore("latest")
    assert database.notes() == [1]
    assert not database.ask()["changed"]


MOMENTS: dict[str, Callable[[Archived], bool]] = {
    "while it fetches": lambda database: bool(
        docker("ps", "--quiet", "--filter", f"name=slipway-{NAME}-database-restore")
    ),
    "while it reads the log": lambda database: (
        "listen_addresses=" in docker("inspect", f"slipway-{NAME}-database-restore", check=False)
    ),
    "at the swap": lambda database: (
        "DATABASE_VOLUME=" + NAME + "-database-17-" in (database.folder / ".env").read_text()
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("moment", MOMENTS)
def test_one_that_was_killed_ends_well_when_it_is_repeated(database: Archived, moment: str) -> None:
    database.ask()
    database.backup()
    database.note(1)
    to = between()
    database.note(2)
    command = [sys.executable, "-m", "slipway.cli", "--root", str(database.root), "db", "restore", "--to", to]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as call:
        deadline = time.monotonic() + 60
        while not MOMENTS[moment](database):
            assert call.poll() is None, "it ended before the moment to kill it"
            assert time.monotonic() < deadline
        call.send_signal(signal.SIGKILL)
    if moment != "at the swap":
        assert database.notes() == [1, 2], "the old data serves until the swap"
    assert database.restore(to)["changed"]
    assert database.notes() == [1]
    assert not database.ask()["changed"]
    assert docker("ps", "--all", "--quiet", "--filter", f"name=slipway-{NAME}-database-restore") == ""
    volumes = docker("volume", "ls", "--quiet", "--filter", f"name={NAME}-database").split()
    assert len(volumes) == 2, "what was cut off is removed"


@pytest.mark.long
def test_no_acknowledged_row_is_lost_when_the_server_is_killed(database: Archived) -> None:
    database.ask()
    database.sql("CREATE TABLE written (writer int, n int)")
    acknowledged: dict[int, int] = {}

    def write(writer: int) -> None:
        with suppress(wire.WireError), database.as_("owner") as owner:
            for number in range(1_000_000):
                owner.ask(f"INSERT INTO written VALUES ({writer}, {number})")  # noqa: S608 - numbers
                acknowledged[writer] = number

    for life in range(3):
        writers = [threading.Thread(target=write, args=[4 * life + one]) for one in range(4)]
        for one in writers:
            one.start()
        time.sleep(2)
        docker("kill", "--signal=KILL", database.container)
        for one in writers:
            one.join()
        docker("start", database.container)
        database.ask()
    found = {writer: (least, most, count) for writer, least, most, count in database.sql(
        "SELECT writer, min(n), max(n), count(*) FROM written GROUP BY writer")}  # fmt: skip
    assert len(acknowledged) == 12
    assert sum(acknowledged.values()) > 1000
    for writer, last in acknowledged.items():
        least, most, count = found[writer]
        assert (least, count) == (0, most + 1)
        assert most >= last


@pytest.mark.long
def test_no_acknowledged_row_is_lost_when_the_disk_is_full(tmp_path: Path, image: str, target: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(disk)], check=True)
    database = Archived(tmp_path / "root", image, {"url": str(target)})
    try:
        on_disk(disk)
        database.ask()
        database.backup()
        database.sql("CREATE TABLE written (n int, filler text)")
        ballast = disk / "ballast"
        subprocess.run(["fallocate", "-l", str(shutil.disk_usage(disk).free - 40 * 1024**2), str(ballast)], check=True)
        acknowledged: list[int] = []
        numbers, deadline = itertools.count(), time.monotonic() + 120
        # A row that finds no room is refused, and the server goes on. Log that finds none ends it.
        while "PANIC" not in log_of(database.container):
            assert time.monotonic() < deadline
            with suppress(wire.WireError), database.as_("owner") as owner:
                for number in itertools.islice(numbers, 100):
                    # What cannot be compressed.
                    filler = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 2000))"
                    owner.ask(f"INSERT INTO written VALUES ({number}, {filler})")  # noqa: S608 - a number
                    acknowledged.append(number)
            if shutil.disk_usage(disk).free < 20 * 1024**2:
                docker("exec", database.container, "psql", "--command", "SELECT pg_switch_wal()", check=False)
        assert len(acknowledged) > 100
        assert "No space left on device" in log_of(database.container)
        ballast.unlink()
        deadline = time.monotonic() + 60
        while True:
            with suppress(RefusedError, wire.WireError):
                database.ask()
                break
            assert time.monotonic() < deadline
            time.sleep(1)
        written = "SELECT n FROM written ORDER BY n"
        assert set(acknowledged) <= {row[0] for row in database.sql(written)}
        # What was archived leads there, too.
        assert database.restore("latest")["changed"]
        assert set(acknowledged) <= {row[0] for row in database.sql(written)}
    finally:
        database.remove()
        subprocess.run(["umount", str(disk)], check=True)


def on_disk(disk: Path) -> None:
    """Have the volume with the data lie there, as Compose would have made it."""
    data = disk / "data"
    data.mkdir(mode=0o700)
    os.chown(data, 999, 999)
    stack = f"{NAME}-database"
    labels = {
        LABEL_NAME: stack,
        LABEL_STACK: "database",
        LABEL_PROJECT: f"slipway-{stack}",
        "com.docker.compose.volume": "data",
    }
    words = [f"--label={name}={value}" for name, value in labels.items()]
    words += ["--opt=type=none", "--opt=o=bind", f"--opt=device={data}"]
    docker("volume", "create", *words, f"{NAME}-database-17")


@pytest.mark.long
def test_log_that_was_given_up_is_told_and_a_backup_leads_on(database: Archived, target: Path) -> None:
    database.ask(archive_terms={"queue": "32m"})
    database.backup()
    database.note(1)
    repository = target / f"{NAME}-wal"
    shutil.chown(repository, 0, 0)
    for number in range(2, 8):
        database.note(number)
        switch(database)
    deadline = time.monotonic() + 60
    while "dropped WAL file" not in log_of(database.container):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    shutil.chown(repository, 999, 999)
    # It tries again at once only for a new one.
    database.note(8)
    switch(database)
    while "segments wait" in (told := database.slipway("db", "backups")).stdout or "Log is missing" not in told.stdout:
        assert time.monotonic() < deadline, told.stdout + told.stderr
        time.sleep(0.5)
    assert told.returncode == 2
    assert "WARNING: Log is missing behind 20" in told.stdout
    assert "slipway db backup takes one." in told.stdout
    with pytest.raises(RefusedError, match=r"cannot go back to .* Log is missing behind 20"):
        database.restore(between())

    database.backup()
    told = database.slipway("db", "backups")
    assert "Log is missing behind" not in told.stdout
    assert "WARNING: Between these, log is missing" in told.stdout
    database.note(9)
    to = between()
    database.note(10)
    database.restore(to)
    assert database.notes() == [*range(1, 10)]


@pytest.mark.long
def test_an_s3_store_takes_and_gives_back(tmp_path: Path, image: str) -> None:
    with archive_targets.s3(tmp_path, "shop") as given, elsewhere(tmp_path, image, given) as database:
        with pytest.raises(RefusedError, match="The certificate of the archive's target"):
            database.ask(archive={**database.archive, "ca": ""})
        assert database.notes() == [1]


@pytest.mark.long
def test_an_ssh_host_takes_and_gives_back_more_files_than_it_lets_one_open(tmp_path: Path, image: str) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    with archive_targets.sftp(keys) as server, elsewhere(tmp_path, image, server.target) as database:
        other = server.target["known_hosts"].replace("AAAA", "AAAB")
        with pytest.raises(RefusedError, match="shows another host key"):
            database.ask(archive={**database.archive, "known_hosts": other})
        assert database.notes() == [1]
        database.ask()
        # By way of a second timeline, and of a backup that is based on others. Files that lie beside each other in a
        # bundle are read at once, but not those between which one is left out.
        many(database, "CREATE TABLE many_%s AS SELECT 1 AS n", 1)
        assert database.backup()["kind"] == "incr"
        many(database, "UPDATE many_%s SET n = 2", 2)
        database.note(3)
        assert database.backup()["kind"] == "incr"
        to = between()
        database.note(4)
        server.end()
        with pytest.raises(RefusedError, match="cannot be reached"):
            database.restore(to)
        server.start()
        database.restore(to)
        assert database.notes() == [1, 3]
        volumes = docker("volume", "ls", "--quiet", "--filter", f"name={NAME}-database").split()
        assert not [volume for volume in volumes if volume.endswith("-backup")], "what was copied is removed"


@pytest.mark.long
def test_what_was_copied_is_removed_when_a_restore_is_killed(tmp_path: Path, image: str) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    with archive_targets.sftp(keys) as server, elsewhere(tmp_path, image, server.target) as database:
        command = [sys.executable, "-m", "slipway.cli", "--root", str(database.root), "db", "restore", "--to", "latest"]

        def copies() -> list[str]:
            return docker("volume", "ls", "--quiet", "--filter", "name=-backup$").split()

        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as call:
            deadline = time.monotonic() + 60
            while not (copies() and docker("ps", "--quiet", "--filter", f"name=slipway-{NAME}-database-restore")):
                assert call.poll() is None, "it ended before the moment to kill it"
                assert time.monotonic() < deadline
            call.send_signal(signal.SIGKILL)
        assert copies()
        assert database.restore("latest")["changed"]
        assert copies() == []
        assert database.notes() == [1]


def many(database: Archived, statement: str, step: int) -> None:
    """Do it with thrice as many tables as an SSH host lets one have files open, or with each of so many."""
    # Each transaction has so many locks.
    for first in range(0, 3 * archive_targets.FILES, 256):
        loop = f"FOR n IN {first}..{first + 255} BY {step} LOOP EXECUTE format('{statement}', n); END LOOP"
        docker("exec", database.container, "psql", "--command", f"DO $$ BEGIN {loop}; END $$")


@contextmanager
def elsewhere(tmp_path: Path, image: str, given: dict[str, Any]) -> Iterator[Archived]:
    """A database that was archived there, and has gone back once."""
    database = Archived(tmp_path / "root", image, given)
    try:
        database.ask(archive=None)
        container, since = database.born().split()
        database.ask()
        assert database.born().split() == [container, since], "to archive is a reload"
        assert database.backup()["kind"] == "full"
        database.note(1)
        to = between()
        database.note(2)
        database.restore(to)
        assert database.notes() == [1]
        yield database
        shown = "".join(database.said) + docker("inspect", database.container) + log_of(database.container)
        assert "never-to-be-seen" not in shown
        assert "PRIVATE KEY" not in shown
    finally:
        database.remove()
