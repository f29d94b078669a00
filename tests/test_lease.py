"""Who may change an environment: one run at a time, and none that was held up and finds that another took over."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from slipway import lease
from slipway.lease import HeldError, Leases, LostError


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    return Leases(tmp_path)


def enter(leases: Leases, run: str, fence: int | None = None) -> lease.Lease | None:
    return leases.enter(run=run, by=f"{run}'s owner", what="stage", fence=fence)


def test_a_run_takes_a_free_lease_and_renews_it_under_the_same_number(leases: Leases) -> None:
    assert enter(leases, "first") is None
    leases.leave(60)
    assert leases.read().fence == 1
    assert enter(leases, "first", fence=1) is None
    assert leases.read().fence == 1


def test_another_run_is_told_who_has_it_what_for_and_what_to_do(leases: Leases) -> None:
    enter(leases, "first")
    leases.leave(60)
    with pytest.raises(HeldError) as held:
        enter(leases, "second")
    assert held.value.what.startswith(
        "first's owner is deploying here (run first, last seen doing stage) and has it for"
    )
    assert "slipway lease --break --reason WHY" in held.value.do_next


def test_a_call_that_is_at_work_keeps_its_lease_however_long_it_takes(leases: Leases, tmp_path: Path) -> None:
    enter(leases, "first")
    found = leases.read()
    found.expires = time.time() - 1000
    (tmp_path / lease.FILE).write_bytes(msgspec.json.encode(found))
    with pytest.raises(HeldError, match="is at work now"):
        enter(leases, "second")


def test_a_lease_that_has_run_out_goes_to_the_next_run_which_learns_what_was_left(leases: Leases) -> None:
    enter(leases, "first")
    leases.leave(-1)
    left = enter(leases, "second")
    assert left is not None
    assert (left.run, left.what) == ("first", "stage")
    assert leases.read().fence == 2


def test_a_lease_whose_call_was_killed_is_free_at_once(leases: Leases, tmp_path: Path) -> None:
    body = (
        "import sys; from pathlib import Path; from slipway.lease import Leases; "
        "Leases(Path(sys.argv[1])).enter(run='killed', by='alice', what='activate', fence=None)"
    )
    subprocess.run([sys.executable, "-c", body, str(tmp_path)], check=True)
    left = enter(leases, "second")
    assert left is not None
    assert (left.by, left.what) == ("alice", "activate")


def test_a_lease_from_before_a_restart_of_the_host_is_free(
    leases: Leases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(leases, "first")
    boot = tmp_path / "boot_id"
    boot.write_text("another boot\n")
    monkeypatch.setattr(lease, "BOOT", boot)
    assert enter(leases, "second") is not None


def test_a_run_that_comes_back_late_is_refused_and_told_who_took_over(leases: Leases) -> None:
    enter(leases, "first")
    leases.leave(-1)
    enter(leases, "second")
    leases.leave(60)
    with pytest.raises(LostError, match=r"second's owner \(run second\) has it now"):
        enter(leases, "first", fence=1)


def test_a_run_whose_lease_was_broken_cannot_take_it_again_by_its_old_number(leases: Leases) -> None:
    enter(leases, "first")
    assert leases.free().run == "first"
    with pytest.raises(LostError, match="it has expired or was broken"):
        enter(leases, "first", fence=1)


def test_what_was_given_up_leaves_nothing_to_recover_and_numbers_go_on_rising(leases: Leases) -> None:
    for number in (1, 2, 3):
        assert enter(leases, f"run {number}") is None
        assert leases.read().fence == number
        leases.free()


def test_a_file_that_a_crash_cut_short_holds_nobody_up(leases: Leases, tmp_path: Path) -> None:
    (tmp_path / lease.FILE).write_text('{"run": "fir')
    assert enter(leases, "second") is None


def test_the_file_has_one_size_so_that_a_full_disk_keeps_nobody_from_going_back(leases: Leases, tmp_path: Path) -> None:
    sizes = set()
    for run in ("a", "a-much-longer-name-of-a-run"):
        enter(leases, run)
        sizes.add((tmp_path / lease.FILE).stat().st_size)
        leases.free()
        sizes.add((tmp_path / lease.FILE).stat().st_size)
    assert sizes == {lease.SECTOR}
    assert json.loads((tmp_path / lease.FILE).read_text())["fence"] == 2
    assert (tmp_path / lease.FILE).stat().st_mode & 0o777 == 0o600


def test_who_holds_it_sees_whether_another_run_waits(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(leases, "first")
    assert not leases.awaited()
    leases.wait_for(0)
    assert leases.awaited()
    monkeypatch.setattr(lease, "FRESH", 0)
    assert not leases.awaited()
