"""What a host does by itself, as systemd's timers or as crontabs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from slipway import schedule
from slipway.errors import PreflightError, UsageError
from slipway.schedule import Job, settle

KINDS = ("backup", "drill")
BACKUP = Job(kind="backup", what="Back up shop", command=["slipway", "backup"], times=["03:17", "15:30"])
DRILL = Job(kind="drill", what="Try a restore of shop", command=["slipway", "drill"], times=["04:05"], day="sun")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The programs that were started; none is."""
    found: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        found.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return found


@pytest.fixture
def on_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "SYSTEMD", tmp_path)


@pytest.fixture
def without_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "SYSTEMD", tmp_path / "none")
    monkeypatch.setattr(schedule, "CRON_PID", tmp_path / "crond.pid")


def test_each_job_becomes_a_timer_that_is_enabled(on_systemd: None, ran: list[list[str]], tmp_path: Path) -> None:
    settle([BACKUP, DRILL], "shop", KINDS, etc=tmp_path)
    units = tmp_path / "systemd" / "system"
    timer = (units / "slipway-shop-backup.timer").read_text()
    assert "OnCalendar=*-*-* 03:17:00\nOnCalendar=*-*-* 15:30:00\n" in timer
    assert "Persistent=true" in timer
    assert "OnCalendar=Sun *-*-* 04:05:00" in (units / "slipway-shop-drill.timer").read_text()
    assert "ExecStart=slipway backup\n" in (units / "slipway-shop-backup.service").read_text()
    assert ran == [
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", "--now", "slipway-shop-backup.timer", "slipway-shop-drill.timer"],
    ]


def test_what_is_as_it_should_be_is_left_alone(on_systemd: None, ran: list[list[str]], tmp_path: Path) -> None:
    settle([BACKUP], "shop", KINDS, etc=tmp_path)
    ran.clear()
    assert settle([BACKUP], "shop", KINDS, etc=tmp_path) == []
    assert ran == []


def test_a_job_that_is_no_longer_wanted_goes_and_others_stay(
    on_systemd: None, ran: list[list[str]], tmp_path: Path
) -> None:
    settle([BACKUP, DRILL], "shop", KINDS, etc=tmp_path)
    settle([Job(kind="backup", what="Back up mart", command=["x"], times=["01:00"])], "shop-mart", KINDS, etc=tmp_path)
    ran.clear()
    settle([BACKUP], "shop", KINDS, etc=tmp_path)
    names = sorted(path.name for path in (tmp_path / "systemd" / "system").iterdir())
    assert names == [
        "slipway-shop-backup.service",
        "slipway-shop-backup.timer",
        "slipway-shop-mart-backup.service",
        "slipway-shop-mart-backup.timer",
    ]
    assert ["systemctl", "disable", "--now", "slipway-shop-drill.timer"] in ran


def test_where_there_is_no_systemd_cron_does_it_and_is_started(
    without_systemd: None, ran: list[list[str]], tmp_path: Path
) -> None:
    settle([BACKUP, DRILL], "shop", KINDS, etc=tmp_path)
    assert "17 3 * * * root slipway backup" in (tmp_path / "cron.d" / "slipway-shop-backup").read_text()
    assert "30 15 * * * root slipway backup" in (tmp_path / "cron.d" / "slipway-shop-backup").read_text()
    assert "5 4 * * sun root slipway drill" in (tmp_path / "cron.d" / "slipway-shop-drill").read_text()
    assert ran == [["cron"]]


def test_without_cron_it_is_said_and_nothing_is_written(
    without_systemd: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreflightError, match="neither systemd nor cron"):
        settle([BACKUP], "shop", KINDS, etc=tmp_path / "etc")
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize("time", ["3:17", "24:00", "12:60", "noon", ""])
def test_a_time_that_is_none_is_refused(time: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no time of day"):
        settle([Job(kind="backup", what="x", command=["x"], times=[time])], "shop", KINDS, etc=tmp_path)


def test_in_check_mode_it_says_what_would_be_written(on_systemd: None, ran: list[list[str]], tmp_path: Path) -> None:
    found = settle([BACKUP], "shop", KINDS, check=True, etc=tmp_path)
    assert found == ["systemd/system/slipway-shop-backup.service", "systemd/system/slipway-shop-backup.timer"]
    assert list(tmp_path.iterdir()) == []
    assert ran == []
