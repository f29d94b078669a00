"""Backups on a host: whole or not there, and what was taken or nothing."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from slipway.backups import Backup, Backups, age, compare
from slipway.errors import CommandError, PreflightError, SlipwayError

ROWS = {"documents": 120, "tags": 7}


def take(backups: Backups, content: bytes = b"the database", **change: Any) -> Backup:
    given: dict[str, Any] = {
        "release": "r1",
        "revision": "0001",
        "service": "api",
        "create": lambda out: out.write(content),
        "verify": lambda source: ROWS,
    }
    # No two in one millisecond.
    time.sleep(0.002)
    return backups.take(**{**given, **change})


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    return Backups(tmp_path)


def lies_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "backups").iterdir())


# --- taking -------------------------------------------------------------------------------------------------------


def test_a_backup_is_kept_with_what_it_is_for_root_alone(backups: Backups, tmp_path: Path) -> None:
    backup = take(backups, b"\x00\xff the database")
    assert (backup.release, backup.revision, backup.service, backup.rows) == ("r1", "0001", "api", ROWS)
    assert backup.size == len(b"\x00\xff the database")
    assert backups.list() == [backup]
    with backups.open(backup) as file:
        assert file.read() == b"\x00\xff the database"
    folder = tmp_path / "backups" / backup.id
    assert backup.id.endswith("Z-0001")
    for path, mode in ((folder.parent, 0o700), (folder, 0o700), (folder / "backup", 0o400)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert stat.S_IMODE((folder / "backup.json").stat().st_mode) == 0o400


def test_what_is_verified_is_what_was_written(backups: Backups) -> None:
    def verify(source: BinaryIO) -> dict[str, int]:
        return {"bytes": len(source.read())}

    assert take(backups, b"x" * 100_000, verify=verify).rows == {"bytes": 100_000}


def test_a_program_may_write_and_read_it_instead(backups: Backups) -> None:
    def create(out: BinaryIO) -> None:
        subprocess.run(["printf", "three\nlines\nhere\n"], stdout=out, check=True)

    def verify(source: BinaryIO) -> dict[str, int]:
        return {"lines": int(subprocess.run(["wc", "-l"], stdin=source, capture_output=True, check=True).stdout)}

    backup = take(backups, create=create, verify=verify)
    assert backup.rows == {"lines": 3}
    with backups.open(backup) as file:
        assert subprocess.run(["cat"], stdin=file, capture_output=True, check=True).stdout == b"three\nlines\nhere\n"


@pytest.mark.parametrize("step", ["create", "verify"])
def test_a_step_that_fails_leaves_nothing_behind_and_the_backups_before(
    step: str, backups: Backups, tmp_path: Path
) -> None:
    kept = take(backups)

    def fail(_: BinaryIO) -> None:
        raise CommandError("`backup` ended with exit code 1.", "Its output is below.")

    failing: dict[str, Any] = {step: fail}
    with pytest.raises(CommandError, match="exit code 1"):
        take(backups, **failing)
    assert lies_in(tmp_path) == [kept.id]


def test_a_revision_with_any_character_makes_a_folder_and_stays_as_it_is(backups: Backups, tmp_path: Path) -> None:
    backup = take(backups, revision="../ä b" + "x" * 300)
    assert backups.find("api", "../ä b" + "x" * 300) == backup
    assert lies_in(tmp_path) == [backup.id]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 256 KB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def written_here(out: BinaryIO) -> None:
    out.write(b"x" * 1_000_000)


def written_by_a_program(out: BinaryIO) -> None:
    done = subprocess.run(["head", "-c", "1000000", "/dev/zero"], stdout=out, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise CommandError(f"`head` ended with exit code {done.returncode}.", "Its output is below.")


@pytest.mark.parametrize("create", [written_here, written_by_a_program])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(create: Callable[[BinaryIO], None], tiny: Path) -> None:
    backups = Backups(tiny)
    kept = take(backups)
    with pytest.raises(PreflightError, match=r"The disk is full: the backup .* Free some space on that file system"):
        take(backups, create=create)
    assert lies_in(tiny) == [kept.id]
    assert take(backups) == backups.list()[0]


# --- finding, opening, removing -------------------------------------------------------------------------------------


def test_the_newest_backup_of_a_revision_is_found(backups: Backups) -> None:
    assert backups.list() == []
    assert backups.find("api", "0001") is None
    take(backups)
    newest = take(backups)
    of_another = take(backups, service="shop")
    later = take(backups, revision="0002")
    assert backups.find("api", "0001") == newest
    assert backups.find("shop", "0001") == of_another
    assert backups.find("shop", "0002") is None
    assert backups.list()[0] == later


@pytest.mark.parametrize("harm", ["one byte is another", "cut short", "gone"])
def test_a_backup_that_was_damaged_is_not_handed_out(harm: str, backups: Backups, tmp_path: Path) -> None:
    backup = take(backups)
    path = tmp_path / "backups" / backup.id / "backup"
    path.chmod(0o600)
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(b"the databasE" if harm.startswith("one") else b"the data")
    with (
        pytest.raises(SlipwayError, match=rf"The backup {backup.id} (is damaged|cannot be read).* Choose another one"),
        backups.open(backup),
    ):
        pytest.fail("it was handed out")


def test_what_cannot_be_read_as_a_backup_is_passed_over(backups: Backups, tmp_path: Path) -> None:
    backup = take(backups)
    for name, content in (("20990101T000000000Z-1", "{}"), ("20990101T000000000Z-2", "{")):
        (tmp_path / "backups" / name).mkdir()
        (tmp_path / "backups" / name / "backup.json").write_text(content)
    (tmp_path / "backups" / "20990101T000000000Z-3").mkdir()
    assert backups.list() == [backup]


def test_backups_that_are_not_wanted_are_removed(backups: Backups, tmp_path: Path) -> None:
    first, second, third = take(backups), take(backups), take(backups, revision="0002")
    assert backups.prune(lambda backup: backup.revision == "0002" or backup == second) == [first]
    assert backups.list() == [third, second]
    backups.remove(first)
    assert lies_in(tmp_path) == sorted([second.id, third.id])


# --- killed in the middle -------------------------------------------------------------------------------------------

TAKE = """
import sys, time
from pathlib import Path
from slipway.backups import Backups

backups = Backups(Path(sys.argv[1]))

def stop_at(point):
    if sys.argv[2] == point and backups.list():
        print("there", flush=True)
        time.sleep(60)

def create(out):
    out.write(b"x" * 1_000_000)
    stop_at("create")
    out.write(b"x" * 1_000_000)

def verify(source):
    stop_at("verify")
    return {"bytes": len(source.read())}

while True:
    backup = backups.take(release="r1", revision="0001", service="api", create=create, verify=verify)
    backups.prune(lambda other: other == backup)
    if sys.argv[2] == "any":
        print("there", flush=True)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Callable[[str, float], None]:
    """Kills a process that takes backups, when it has one: at a point, or some seconds later anywhere."""

    def kill(point: str, seconds: float = 0) -> None:
        with subprocess.Popen([sys.executable, "-c", TAKE, str(tmp_path), point], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"there\n"
            time.sleep(seconds)
            child.kill()
            child.stdout.read()

    return kill


def all_are_whole(backups: Backups, folder: Path) -> None:
    found = backups.list()
    assert found
    for backup in found:
        assert backup.rows == {"bytes": 2_000_000}
        with backups.open(backup) as file:
            assert len(file.read()) == 2_000_000
    last = take(backups)
    assert lies_in(folder) == sorted(backup.id for backup in (*found, last))


@pytest.mark.parametrize("point", ["create", "verify"])
def test_a_call_that_is_killed_leaves_what_the_next_one_sweeps_away(
    point: str, killed: Callable[[str], None], backups: Backups, tmp_path: Path
) -> None:
    killed(point)
    assert [name.startswith(".taking-") for name in lies_in(tmp_path)] == [True, False]
    all_are_whole(backups, tmp_path)


@pytest.mark.parametrize("seconds", [number * 0.004 for number in range(8)])
def test_a_call_that_is_killed_anywhere_leaves_no_half_of_a_backup(
    seconds: float, killed: Callable[[str, float], None], backups: Backups, tmp_path: Path
) -> None:
    killed("any", seconds)
    all_are_whole(backups, tmp_path)


def test_a_removal_that_is_killed_is_finished_by_the_next_call(backups: Backups, tmp_path: Path) -> None:
    backup = take(backups)
    path = tmp_path / "backups" / backup.id
    path.rename(path.with_name(f".taking-{backup.id}"))
    assert backups.list() == []
    backups.sweep()
    assert lies_in(tmp_path) == []


# --- what is said ---------------------------------------------------------------------------------------------------


def test_what_has_changed_since_is_told_table_by_table() -> None:
    then = {"documents": 120, "tags": 7, "users": 3}
    assert [str(found) for found in compare(then, {"documents": 134, "tags": 7, "drafts": 1})] == [
        "documents: 120 then, 134 now",
        "drafts: not there then, 1 now",
        "users: 3 then, not there now",
    ]
    assert compare(then, dict(then)) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"),
        (59, "less than a minute"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (3600, "1 hour"),
        (86399, "23 hours"),
        (86400, "1 day"),
        (40 * 86400, "40 days"),
    ],
)
def test_the_age_of_a_backup_is_told_in_words(seconds: int, words: str, backups: Backups) -> None:
    backup = take(backups)
    assert age(backup, datetime.fromisoformat(backup.at) + timedelta(seconds=seconds)) == words
    assert age(backup) == "less than a minute"
