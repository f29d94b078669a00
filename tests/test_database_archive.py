"""What pgBackRest is told by kind of target, and to when one can go back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from slipway.archive.target import Target
from slipway.database import archive
from slipway.database.archive import About, Backup, Contents, Line, Terms, Window
from slipway.errors import PreflightError, SlipwayError, UsageError

PASSWORD = "never-to-be-seen-archive-0123456789"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
GIB = 1024**3


def target(url: str, **change: Any) -> Target:
    given = {
        "access_key": "AKIA0",
        "secret_key": "never-to-be-seen-s3",
        "ssh_key": "KEY",
        "known_hosts": "h ssh-ed25519 A",
    }
    return Target(url=url, password=PASSWORD, **{**given, **change})


def options(url: str, **change: Any) -> dict[str, str]:
    text = archive.conf(target(url, **change), "shop", Terms(), disk=100 * GIB, port=5433)
    return dict(line.split("=", 1) for line in text.split("[global:")[0].splitlines() if "=" in line)


# --- what pgBackRest is told --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("/srv/backups", {"repo1-type": "posix", "repo1-path": "/var/lib/pgbackrest"}),
        (
            "sftp://keeper@10.20.0.31:2222/srv/backups",
            {
                "repo1-type": "sftp",
                "repo1-path": "/srv/backups/shop-wal",
                "repo1-sftp-host": "10.20.0.31",
                "repo1-sftp-host-port": "2222",
                "repo1-sftp-host-user": "keeper",
                "repo1-sftp-host-key-check-type": "strict",
                "repo1-sftp-known-host": "/etc/postgresql/archive_known_hosts",
                "repo1-sftp-private-key-file": "/run/secrets/archive_key",
            },
        ),
        (
            "s3://store.example/bucket/folder",
            {
                "repo1-type": "s3",
                "repo1-path": "/folder/shop-wal",
                "repo1-s3-bucket": "bucket",
                "repo1-s3-endpoint": "store.example",
                "repo1-s3-uri-style": "path",
                "repo1-storage-port": "443",
                "repo1-storage-verify-tls": "y",
                "repo1-storage-ca-file": "/etc/ssl/certs/ca-certificates.crt",
            },
        ),
        ("s3://store.example:9000/bucket", {"repo1-path": "/shop-wal", "repo1-storage-port": "9000"}),
    ],
)
def test_each_kind_of_target_is_told_in_its_own_options(url: str, wanted: dict[str, str]) -> None:
    found = options(url)
    assert wanted.items() <= found.items()
    assert found["repo1-cipher-type"] == "aes-256-cbc"
    assert found["repo1-cipher-pass"] == PASSWORD
    assert found["archive-push-queue-max"] == str(25 * GIB)


@pytest.mark.parametrize(
    ("url", "where", "folder", "block"),
    [
        ("/srv/backups", "/srv/backups/shop-wal", "/srv/backups/shop-wal", "y"),
        # Each part of a file is one more that stays open there.
        ("sftp://keeper@host:2222/srv", "sftp://keeper@host:2222/srv/shop-wal", "", "n"),
        ("s3://store.example/bucket/folder", "s3://store.example/bucket/folder/shop-wal", "", "y"),
    ],
)
def test_what_is_noted_tells_where_it_is(url: str, where: str, folder: str, block: str) -> None:
    noted = next(file for file in archive.files(target(url), "shop", Terms()) if file.path == archive.ABOUT)
    about = msgspec.json.decode(noted.content, type=About)
    assert (about.where, about.folder, about.full_days) == (where, folder, 7)
    assert (options(url)["repo1-bundle"], options(url)["repo1-block"]) == ("y", block)


# --- what is copied of an SSH host --------------------------------------------------------------------------------


def test_a_copy_has_all_that_a_restore_reads_and_nothing_else() -> None:
    one = msgspec.structs.replace(backup(4, 4, kind="incr"), label="full_incr", needs=["full", "full_incr"])
    place = target("sftp://keeper@host/srv/backups").place.below("shop-wal")
    told = archive.copying(place, one, "17-1", 3).splitlines()
    assert [line.removeprefix("lmkdir /var/lib/pgbackrest/") for line in told if line.startswith("lmkdir")] == [
        "backup", "backup/main", "archive", "archive/main", "archive/main/17-1",
    ]  # fmt: skip
    assert {line.split()[-2].removeprefix("/srv/backups/shop-wal/") for line in told if "get" in line} == {
        "backup/main/backup.info", "backup/main/backup.info.copy", "backup/main/full", "backup/main/full_incr",
        "archive/main/archive.info", "archive/main/archive.info.copy", "archive/main/17-1/00000003.history",
    }  # fmt: skip
    # One of two is enough, but a backup is whole or none.
    assert all(line.startswith("-get") == (".info" in line) for line in told if "get" in line)
    assert "history" not in archive.copying(place, one, "17-1", 1)


def test_a_copy_is_made_by_the_key_and_from_the_host_that_are_known() -> None:
    words = archive.sftp_words(target("sftp://keeper@10.20.0.31:2222/srv").place)
    assert words[-1] == "keeper@10.20.0.31"
    assert {
        "-oPort=2222",
        "-oStrictHostKeyChecking=yes",
        "-oUserKnownHostsFile=/etc/postgresql/archive_known_hosts",
        "-oIdentityFile=/run/secrets/archive_key",
    } <= set(words)
    assert archive.sftp_words(target("sftp://keeper@[fd00::1]/srv").place)[-1] == "keeper@[fd00::1]"


def test_a_copy_takes_the_room_of_all_that_the_backup_consists_of() -> None:
    full, other = backup(1, 1), backup(2, 2)
    last = msgspec.structs.replace(backup(3, 3, kind="incr"), stored=100, needs=[full.label, "3"])
    contents = Contents(system="7", version="17", archive="17-1", backups=[full, other, last])
    assert archive.stored(last, contents) == 101


def test_an_authority_of_ones_own_is_verified_by() -> None:
    assert options("s3://store.example/bucket", ca="PEM")["repo1-storage-ca-file"] == "/etc/postgresql/archive_ca.crt"


@pytest.mark.parametrize("url", ["/srv/backups", "sftp://keeper@host/srv", "s3://store.example/bucket"])
def test_secrets_are_in_files_for_pgbackrest_alone(url: str) -> None:
    given = target(url, ssh_key="never-to-be-seen-ssh", ca="PEM")
    shown = "".join(file.content for file in archive.files(given, "shop", Terms()))
    secret = archive.secret_files(given, "shop", Terms(), disk=GIB, port=5432)
    assert "never-to-be-seen" not in shown
    assert {(file.mode, file.uid) for file in secret} == {("0400", 999)}
    assert PASSWORD in secret[0].content


@pytest.mark.parametrize("password", [f"{PASSWORD}\nrepo1-cipher-type=none", f" {PASSWORD}"])
def test_a_password_that_no_line_could_hold_is_refused_and_not_shown(password: str) -> None:
    given = Target(url="/srv/backups", password=password)
    with pytest.raises(UsageError, match="has a line break, or a space at an end: repo1-cipher-pass") as refused:
        archive.conf(given, "shop", Terms(), disk=GIB, port=5432)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(("said", "bytes_"), [("20g", 20 * GIB), ("512m", GIB // 2), ("25%", 25 * GIB), ("1%", GIB)])
def test_what_may_wait_is_a_size_or_a_share(said: str, bytes_: int) -> None:
    assert archive.queue_of(said, disk=100 * GIB + 5) == bytes_


@pytest.mark.parametrize("said", ["", "all", "0%", "100%", "0g"])
def test_what_is_neither_is_refused(said: str) -> None:
    with pytest.raises(UsageError, match="neither a size nor a share"):
        archive.queue_of(said, disk=GIB)


# --- when a backup is full ----------------------------------------------------------------------------------------


def backup(hours: float, last: int, *, kind: str = "full", timeline: int = 1, damaged: bool = False) -> Backup:
    """One that ended so many hours after noon, in that segment."""
    ended = NOON + timedelta(hours=hours)
    name = f"{timeline:08X}00000000{last:08X}"
    return Backup(
        label=f"{hours}", kind=kind, began=ended, ended=ended, first=name, last=name,
        stop=last * archive.SEGMENT + 80, size=1, stored=1, needs=[f"{hours}"], damaged=damaged,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("backups", "days", "kind"),
    [
        ([], 7, "full"),
        ([backup(0, 3)], 1, "incr"),
        ([backup(0, 3)], 6.9, "incr"),
        # The timer of the same time a week later is a moment early.
        ([backup(0, 3)], 6.99, "full"),
        ([backup(0, 3)], 8, "full"),
        ([backup(0, 3), backup(150, 9, kind="incr")], 7, "full"),
        ([backup(0, 3, damaged=True)], 1, "full"),
    ],
)
def test_a_backup_is_full_once_a_week(backups: list[Backup], days: float, kind: str) -> None:
    assert archive.kind_due(backups, 7, NOON + timedelta(days=days)) == kind


# --- to when one can go back --------------------------------------------------------------------------------------


def archived(*segments: int, timeline: int = 1) -> dict[str, datetime]:
    """Segments of a timeline, the first of them at noon and then one each hour."""
    return {f"{timeline:08X}00000000{one:08X}": NOON + timedelta(hours=one) for one in segments}


def window(after: float, to: float) -> Window:
    return Window(after=NOON + timedelta(hours=after), to=NOON + timedelta(hours=to))


ONE = Line([(1, 0)])
TWO = archive.line(2, f"1\t0/{5 * archive.SEGMENT + 100:X}\tno recovery target specified\n")
"""A second timeline that leaves the first one in its fifth segment."""


@pytest.mark.parametrize(
    ("backups", "line", "there", "wanted"),
    [
        ([], ONE, archived(1, 2), []),
        ([backup(2, 2)], ONE, archived(1, 2, 3, 4), [window(2, 4)]),
        # Nothing behind the backup has come yet.
        ([backup(2.5, 2)], ONE, archived(2), [window(2.5, 2.5)]),
        # A gap, and no backup behind it: what lies there is of no use.
        ([backup(2, 2)], ONE, archived(2, 3, 6, 7), [window(2, 3)]),
        ([backup(2, 2), backup(6, 6)], ONE, archived(2, 3, 6, 7), [window(2, 3), window(6, 7)]),
        ([backup(2, 2), backup(4, 4)], ONE, archived(2, 3, 4, 5), [window(2, 5)]),
        # Over the end of a timeline into the next.
        ([backup(2, 2)], TWO, {**archived(2, 3, 4, 5, 6, 7), **archived(5, 6, timeline=2)}, [window(2, 6)]),
        # A backup of a branch that was left leads nowhere.
        ([backup(6, 6)], TWO, archived(6, 7), []),
        ([backup(6, 6, timeline=2)], TWO, archived(6, 7, timeline=2), [window(6, 7)]),
    ],
)
def test_one_can_go_back_as_far_as_the_log_has_no_gap(
    backups: list[Backup], line: Line, there: dict[str, datetime], wanted: list[Window]
) -> None:
    assert archive.windows(backups, line, there) == wanted


@pytest.mark.parametrize(
    ("backups", "line", "there", "sent", "hours"),
    [
        ([], ONE, archived(1, 3), "", None),
        ([backup(2, 2)], ONE, archived(2, 3, 4), "", None),
        ([backup(2, 2)], ONE, archived(2, 3, 6, 7), "", 3),
        ([backup(2.5, 2)], ONE, archived(2, 4), "", 2.5),
        # A backup behind the gap leads on from there; another gap behind that one does not.
        ([backup(2, 2), backup(6, 6)], ONE, archived(2, 3, 6, 7), "", None),
        ([backup(2, 2), backup(6, 6)], ONE, archived(2, 3, 6, 7, 9), "", 7),
        # Nothing has come since, and what the server has given away is not there.
        ([backup(2, 2)], ONE, archived(2, 3), "000000010000000000000003", None),
        ([backup(2, 2)], ONE, archived(2, 3), "000000010000000000000005", 3),
        ([backup(2, 2)], ONE, archived(2, 3), "00000002.history", None),
        # What a branch has that was left is not missing.
        ([backup(2, 2)], TWO, {**archived(2, 3, 4, 5, 8), **archived(5, timeline=2)}, "", None),
        ([backup(2, 2)], TWO, {**archived(2, 3, 4), **archived(5, 7, timeline=2)}, "", 5),
    ],
)
def test_log_that_is_missing_behind_the_newest_backup_is_seen(
    backups: list[Backup], line: Line, there: dict[str, datetime], sent: str, hours: float | None
) -> None:
    wanted = None if hours is None else NOON + timedelta(hours=hours)
    assert archive.missing_since(backups, line, there, sent) == wanted


def test_what_is_known_to_have_arrived_counts_until_now() -> None:
    now = NOON + timedelta(hours=9)
    assert archive.windows([backup(2, 2)], ONE, archived(2, 3), now) == [window(2, 9)]
    # Not so behind a gap.
    assert archive.windows([backup(2, 2)], ONE, archived(2, 3, 5), now) == [window(2, 3)]


@pytest.mark.parametrize(
    ("hours", "label"),
    [
        (1, None),
        (2, None),
        (2.001, "2"),
        (4, "2"),
        (4.5, "4"),
        (6, "4"),
        (6.5, None),
        (7.5, "7"),
        (9, "7"),
        (9.5, None),
    ],
)
def test_one_begins_with_the_newest_backup_before_the_moment(hours: float, label: str | None) -> None:
    backups = [backup(2, 2), backup(4, 4), backup(7, 8)]
    found = archive.base(backups, ONE, archived(2, 3, 4, 5, 6, 8, 9), NOON + timedelta(hours=hours))
    assert (found.label if found else None) == label


def test_the_end_begins_with_the_newest_backup_of_the_line() -> None:
    backups = [backup(2, 2), backup(6, 6)]
    assert archive.base(backups, ONE, {}, None) == backups[1]
    assert archive.base(backups, TWO, {}, None) == backups[0]
    assert archive.base([], ONE, {}, None) is None


def test_a_history_of_three_timelines_is_a_line() -> None:
    history = "1\t0/5000100\tbefore 2026-11-24\n\n2\t0/9000000\tno recovery target specified\n"
    line = archive.line(3, history)
    assert line.parts == [(1, 0), (2, 0x5000100), (3, 0x9000000)]
    assert [line.timeline(segment) for segment in (1, 4, 5, 8, 9, 200)] == [1, 1, 2, 2, 3, 3]


def test_what_pgbackrest_tells_is_of_the_cluster_that_was_archived_last() -> None:
    def told(label: str, cluster: int) -> dict[str, Any]:
        return {
            "label": label, "type": "full", "database": {"id": cluster}, "error": False,
            "timestamp": {"start": 1795984000, "stop": 1795984060}, "lsn": {"start": "0/3000028", "stop": "0/3000120"},
            "archive": {"start": "000000010000000000000003", "stop": "000000010000000000000003"},
            "info": {"size": 30_000_000, "repository": {"delta": 4_000_000}},
        }  # fmt: skip

    clusters = [{"id": 1, "system-id": 71, "version": "15"}, {"id": 2, "system-id": 72, "version": "17"}]
    found = archive.contents(json.dumps([{"db": clusters, "backup": [told("old", 1), told("new", 2)]}]))
    assert (found.system, found.archive, [one.label for one in found.backups]) == ("72", "17-2", ["new"])
    assert found.backups[0].stop == 0x3000120
    assert found.backups[0].needs == ["new"]
    based = {**told("new_incr", 2), "reference": ["new"]}
    assert archive.contents(json.dumps([{"db": clusters, "backup": [based]}])).backups[0].needs == ["new", "new_incr"]
    assert archive.contents("[]").backups == []


def test_segments_and_histories_are_told_apart() -> None:
    name = "0000000200000001000000FE"
    listed = json.dumps(
        {
            ".": {"type": "path"},
            f"0000000200000001/{name}-{'a' * 40}.zst": {"type": "file", "time": 1795984000},
            f"0000000200000001/{name}.00000028.backup": {"type": "file", "time": 1795984000},
            "00000002.history": {"type": "file", "time": 1795984000},
        }
    ).encode()
    assert list(archive.segments(listed)) == [name]
    assert archive.timelines(listed) == [2]
    assert archive.number_of(name) == 256 + 0xFE


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        ("latest", None),
        ("2026-11-24T12:00:00Z", NOON),
        ("2026-11-24 12:00:00", NOON),
        ("2026-11-24T13:00:00+01:00", NOON),
    ],
)
def test_a_moment_is_utc_where_it_names_no_zone(said: str, moment: datetime | None) -> None:
    assert archive.moment_of(said) == moment


def test_what_is_no_moment_is_refused() -> None:
    with pytest.raises(UsageError, match="'yesterday' is no moment to go back to"):
        archive.moment_of("yesterday")


def test_the_windows_are_told_in_one_sentence() -> None:
    assert archive.told([]) == "There is no backup yet to begin with."
    assert archive.told([window(2, 3), window(6, 7)]) == (
        "One can go back to any second from 2026-11-24T14:00:01Z to 2026-11-24T15:00:00Z, "
        "and from 2026-11-24T18:00:01Z to 2026-11-24T19:00:00Z."
    )


# --- what went wrong ----------------------------------------------------------------------------------------------

ABOUT = archive.about(target("/srv/backups"), "shop", Terms())


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("ERROR: [095]: unable to flush", "cannot be read with backup_password"),
        ("[FormatError] key/value found outside of section at line 1: ??", "cannot be read with backup_password"),
        ("ERROR: [049]: unable to connect to 's3:443': [111] Connection refused", "cannot be reached"),
        ("ERROR: [041]: unable to open file '/x' for write: [13] Permission denied", "Nothing can be written"),
        (
            "ERROR: [083]: unable to write '/var/lib/pgbackrest/backup/x': [28] No space left on device",
            "The target of the archive, /srv/backups/shop-wal, is full",
        ),
        (
            "ERROR: [083]: unable to write '/var/lib/postgresql/data/base/5/x': [28] No space left on device",
            "The disk of the database's host is full",
        ),
        ("ERROR: [039]: HTTP request failed with 507 (Insufficient Storage)", "The target of the archive"),
        ("Host key verification failed.", "shows another host key"),
        ("keeper@host: Permission denied (publickey).", "does not take backup_ssh_key"),
        ("ssh: connect to host 10.0.0.9 port 22: Connection timed out", "cannot be reached"),
        ('File "/srv/backups/shop-wal/backup/main/x" not found.', "is damaged"),
        (
            "ERROR: [095]: unable to verify certificate presented by 's3': [20]",
            "The certificate of the archive's target",
        ),
        ("ERROR: [082]: WAL segment 0000000100 was not archived before the 60000ms timeout", "does not arrive"),
        ("ERROR: [055]: archive.info exists but backup.info is missing on repo1", "is damaged"),
        ("ERROR: [039]: HTTP request failed with 403 (Forbidden)", "does not take backup_access_key"),
        ("ERROR: [050]: unable to acquire lock on file '/tmp/x.lock'", "Another backup of this database is under way"),
        ("ERROR: [001]: something new", "pgBackRest could not do its work"),
    ],
)
def test_what_pgbackrest_says_is_told_in_one_sentence(said: str, sentence: str) -> None:
    error = archive.wrong(f"P00   WARN: x\nP00  {said}", ABOUT, 1)
    assert isinstance(error, SlipwayError)
    assert sentence in error.what
    assert error.details.endswith(said)


def test_a_lock_is_nothing_that_was_done() -> None:
    assert isinstance(archive.wrong("ERROR: [050]: unable to acquire lock", ABOUT, 50), PreflightError)


@pytest.mark.parametrize("full", [True, False])
def test_a_full_disk_here_is_no_full_target(full: bool) -> None:
    def what(said: str, url: str) -> str:
        return archive.wrong(said, archive.about(target(url), "shop", Terms()), 1, full=full).what

    here = "The disk of the database's host is full."
    # A copy lies where the archive would be.
    copied = 'write local "/var/lib/pgbackrest/backup/main/x": No space left on device'
    assert what(copied, "sftp://keeper@host/srv") == here
    assert what(copied, "/srv") != here
    # Nothing is cited.
    assert (what("ERROR: [083]: No space left on device", "/srv") == here) == full


def test_what_a_wrong_password_makes_of_a_file_does_not_garble_a_terminal() -> None:
    assert archive.readable(b"line 1: \x93\x1b[31m\n") == "line 1: ??[31m\n"
