"""What an archive tells, and which backup of it is meant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from slipway.archive.backup import Listed, choose, choose_beside, moment, size_text
from slipway.archive.commands import backups_text
from slipway.archive.restic import Restic, secret_files
from slipway.archive.restore import BEFORE, RESTORED, put_back, put_in_place
from slipway.archive.settings import Archive, Settings, warnings
from slipway.archive.target import Target
from slipway.errors import PreflightError, SlipwayError
from slipway.ledger import Entry, Phase, Result
from slipway.store import Store

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
PASSWORD = "a-password-that-is-long-enough"


def backup(at: str, release: str = "aaaa1111", host: str = "app1", database: bool = True, verified: str = "") -> Listed:
    return Listed(
        id=at.replace("-", "").replace(":", ""),
        at=at,
        host=host,
        release=release,
        revision="0002",
        database=database,
        volumes=[],
        size=1234567,
        verified=verified,
        drilled=False,
        snapshot="5" * 64,
        outgoing="/srv/slipway/shop/archive/outgoing",
    )


FOUND = [
    backup("2026-11-29T03:17:00+00:00", release="bbbb2222"),
    backup("2026-11-28T03:18:00+00:00", host="app2", database=False),
    backup("2026-11-28T03:17:00+00:00"),
    backup("2026-11-27T03:17:00+00:00"),
]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ({}, 0),
        ({"at": "2026-11-29T03:17:00Z"}, 0),
        ({"at": "2026-11-29T03:16:59Z"}, 1),
        ({"at": "2026-11-29T04:16:59+02:00", "database": True}, 2),
        ({"host": "app2"}, 1),
        ({"release": "aaaa", "database": True}, 2),
        ({"backup": "20261127"}, 3),
    ],
)
def test_the_newest_that_fits_is_chosen(wanted: dict[str, str], chosen: int) -> None:
    assert choose(FOUND, **wanted) is FOUND[chosen]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("at", "chosen"),
    [
        ("2026-11-28T03:17:00Z", "2026-11-28T03:18:00+00:00"),
        ("2026-11-28T03:18:30Z", "2026-11-28T03:18:00+00:00"),
        ("2026-11-28T03:20:00Z", "2026-11-28T03:20:30+00:00"),
        ("2026-11-28T03:09:00Z", "2026-11-28T03:18:00+00:00"),
        ("2026-11-28T03:07:00Z", "2026-11-25T03:17:10+00:00"),
        ("2026-11-30T03:17:00Z", "2026-11-28T03:20:30+00:00"),
    ],
)
def test_beside_the_backup_of_one_host_another_host_takes_its_own_of_that_time(at: str, chosen: str) -> None:
    times = ("2026-11-28T03:20:30+00:00", "2026-11-28T03:18:00+00:00", "2026-11-25T03:17:10+00:00")
    found = [backup("2026-11-28T03:17:00+00:00"), *(backup(time, host="app2", database=False) for time in times)]
    assert choose_beside(found, at=at, host="app2").at == chosen


def test_a_host_without_a_backup_of_that_time_or_before_says_so() -> None:
    with pytest.raises(PreflightError, match="has no backup of app2 from 2026-11-27T03:17:00Z or before"):
        choose_beside(FOUND, at="2026-11-27T03:17:00Z", host="app2")


def test_where_none_fits_it_is_said_what_there_is() -> None:
    with pytest.raises(PreflightError, match="has no backup from 2020-01-01 or before") as refused:
        choose(FOUND, at="2020-01-01")
    assert FOUND[0].id in str(refused.value)
    assert FOUND[-1].id in str(refused.value)
    with pytest.raises(PreflightError, match="It is empty"):
        choose([])


def test_a_time_without_a_zone_is_utc_and_what_is_none_is_refused() -> None:
    assert moment("2026-11-29T03:17:00") == datetime(2026, 11, 29, 3, 17, tzinfo=UTC)
    with pytest.raises(PreflightError, match="yesterday is no time"):
        moment("yesterday")


def test_the_list_tells_when_each_was_verified() -> None:
    verified = backup("2026-11-29T03:17:00+00:00", verified="2026-11-29T09:00:00+00:00")
    lines = backups_text([verified, backup("2026-11-27T03:17:00+00:00")], NOW).splitlines()
    assert lines[0].startswith("BACKUP")
    assert "8 hours ago" in lines[1]
    assert lines[1].endswith("3 hours ago, before it left")
    assert lines[2].endswith("never")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (33600, "33.6 kB"), (1.2e9, "1.2 GB"), (5e12, "5.0 TB")]
)
def test_sizes_are_told_in_units_of_a_thousand(size: float, text: str) -> None:
    assert size_text(size) == text


# --- what restic says -------------------------------------------------------------------------------------------------


@pytest.fixture
def restic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that complains with what is written beside it."""
    program = tmp_path / "bin" / "restic"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/called\nenv > {tmp_path}/env\ncat {tmp_path}/said >&2\nexit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Fatal: wrong password or no key found", "does not open with this password"),
        ("Fatal: unable to open config file: Stat: no such file or directory\nIs there a repository at the following "
         "location?\n/b/shop", "There is no archive at"),
        ("Fatal: unable to save snapshot: write /b/x: no space left on device", "is full"),
        ("subprocess ssh: ssh: connect to host 10.0.0.9 port 22: Connection refused\nFatal: unable to open repository",
         "cannot be reached, or does not let this host in"),
        ("Fatal: unable to open config file: Stat: Get \"https://s3.example/b\": dial tcp 10.0.0.9:443: connect: "
         "connection refused\nIs there a repository at the following location?\ns3:https://s3.example", "be reached"),
        ("subprocess ssh: Host key verification failed.", "does not let this host in"),
        ("Fatal: unable to open repository: client.BucketExists: Access Denied", "does not let this host in"),
        ("Load(<data/1>) failed: ciphertext verification failed", "is damaged"),
        ("Fatal: repository contains errors", "is damaged"),
        ("unable to create lock in backend: repository is already locked by PID 1", "Another program is at work"),
        ("Fatal: something new", "could not be read"),
    ],
)  # fmt: skip
def test_what_restic_complains_of_becomes_a_sentence(
    restic: Path, said: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway.archive.restic.PATIENCE", 0)
    (restic / "said").write_text(said)
    with pytest.raises(SlipwayError, match=told):
        Restic("/b", "shop", "app1", restic).snapshots()


def test_what_is_at_work_on_the_archive_is_waited_for(restic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway.archive.restic.PAUSE", 0.01)
    tries = restic / "tries"
    locked = "unable to create lock in backend: repository is already locked exclusively by PID 1 on app2"
    script = ["#!/bin/sh", f"echo >> {tries}", f'[ "$(wc -l < {tries})" = 3 ] && {{ echo "[]"; exit 0; }}']
    (restic / "bin" / "restic").write_text("\n".join([*script, f'echo "{locked}" >&2', "exit 1", ""]))
    assert Restic("/b", "shop", "app1", restic).snapshots() == []
    assert tries.read_text() == "\n\n\n"


def test_nothing_secret_stands_in_a_command_line(restic: Path) -> None:
    (restic / "said").write_text("")
    target = Target(
        url="s3://s3.example:9000/b",
        password=PASSWORD,
        access_key="an-access-key",
        secret_key="a-secret-key",
        ca="-----BEGIN CERTIFICATE-----",
    )
    for name, content in secret_files(target).items():
        (restic / name).write_text(content)
    with pytest.raises(SlipwayError):
        Restic(target.url, "shop", "app1", restic, target.region).snapshots()
    called, environment = (restic / "called").read_text(), (restic / "env").read_text()
    assert "--repo=s3:https://s3.example:9000/b/shop/app1" in called
    assert f"--cacert={restic}/ca.crt" in called
    for secret in (PASSWORD, "an-access-key", "a-secret-key"):
        assert secret not in called
        assert secret not in environment


def test_an_sftp_host_is_reached_by_its_known_key_alone(restic: Path) -> None:
    (restic / "said").write_text("")
    with pytest.raises(SlipwayError):
        Restic("sftp://keeper@10.0.0.9:2222/srv/b", "shop", "app1", restic).snapshots()
    called = (restic / "called").read_text()
    assert "--repo=sftp:keeper@10.0.0.9:/srv/b/shop/app1" in called
    assert "StrictHostKeyChecking=yes" in called
    assert "-p 2222 keeper@10.0.0.9 -s sftp" in called
    assert "BatchMode=yes" in called


# --- what the status warns of -----------------------------------------------------------------------------------------


def entry(phase: Phase, hours: float, result: Result = "good", reason: str = "") -> Entry:
    at = (NOW - timedelta(hours=hours)).isoformat()
    return Entry(at=at, run="r", by="root", phase=phase, release="aaaa", result=result, reason=reason)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([entry("backup", 8), entry("drill", 50)], []),
        ([], ["backup is still to come", "drill, which restores a backup on trial, is still to come"]),
        ([entry("backup", 30), entry("drill", 50)], ["The newest backup is 1 day old"]),
        ([entry("backup", 8), entry("drill", 240)], ["is 10 days old"]),
        ([entry("backup", -48), entry("drill", 50)], ["is dated in the future"]),
        (
            [entry("backup", 20), entry("drill", 50), entry("backup", 1, "failed", "The target is full.")],
            ["The newest backup failed: The target is full."],
        ),
        ([entry("backup", 8), entry("drill", 50), entry("drill", 1, "failed", "Damaged.")], ["drill failed: Damaged."]),
    ],
)
def test_the_status_warns_of_what_is_old_or_failed(entries: list[Entry], told: list[str], tmp_path: Path) -> None:
    archive = Archive(Store("shop", tmp_path))
    archive.folder.mkdir(parents=True)
    (archive.folder / "archive.json").write_bytes(msgspec.json.encode(Settings(url="/b", host="app1")))
    found = warnings(archive, entries, NOW.timestamp())
    assert len(found) == len(told)
    assert all(part in sentence for part, sentence in zip(told, found, strict=True))


# --- volumes ----------------------------------------------------------------------------------------------------------


def volume(folder: Path) -> Path:
    for name, content in (("_data", "before"), (RESTORED, "from the archive")):
        (folder / name).mkdir()
        (folder / name / "file").write_text(content)
    return folder


def test_a_volume_is_replaced_and_can_be_put_back(tmp_path: Path) -> None:
    folder = volume(tmp_path)
    put_in_place(folder)
    assert (folder / "_data" / "file").read_text() == "from the archive"
    put_back(folder)
    assert (folder / "_data" / "file").read_text() == "before"
    assert not (folder / BEFORE).exists()
    put_back(folder)
    assert (folder / "_data" / "file").read_text() == "before"


def test_one_that_was_killed_between_two_steps_can_be_put_back(tmp_path: Path) -> None:
    folder = volume(tmp_path)
    (folder / "_data").rename(folder / BEFORE)
    put_back(folder)
    assert (folder / "_data" / "file").read_text() == "before"


def test_the_program_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreflightError, match="There is no restic on this host"):
        Restic("/b", "shop", "app1", tmp_path).snapshots()
