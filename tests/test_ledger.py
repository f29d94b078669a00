"""The ledger survives a crash in the middle of a line and tells which releases were good."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from slipway.errors import UnhealthyError
from slipway.ledger import Entry, Ledger, Phase, Result


def entry(release: str = "r1", phase: Phase = "activate", result: Result = "good", schema_after: str = "") -> Entry:
    return Entry(run="run", by="alice", phase=phase, release=release, result=result, schema_after=schema_after)


def test_an_entry_is_read_back_as_it_was_written_with_the_time_of_its_writing(tmp_path: Path) -> None:
    Ledger(tmp_path).append(entry(schema_after="0002"))
    [found] = Ledger(tmp_path).entries()
    assert (found.release, found.by, found.schema_after) == ("r1", "alice", "0002")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(found.at)).total_seconds()) < 5


def test_only_root_reads_it(tmp_path: Path) -> None:
    Ledger(tmp_path).append(entry())
    assert stat.S_IMODE((tmp_path / "ledger.jsonl").stat().st_mode) == 0o600


def test_before_the_first_deploy_it_is_empty(tmp_path: Path) -> None:
    assert Ledger(tmp_path).entries() == []
    assert Ledger(tmp_path).good_releases() == []
    assert Ledger(tmp_path).schema() == ""


@pytest.mark.parametrize("left", [1, 20, 80])
def test_a_line_that_a_crash_cut_short_is_passed_over_and_does_not_swallow_the_next(left: int, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(entry("r1"))
    ledger.append(entry("r2"))
    path = tmp_path / "ledger.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:left])
    ledger.append(entry("r3"))
    assert [found.release for found in ledger.entries()] == ["r1", "r3"]


def test_a_line_that_only_lacks_its_end_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(entry("r1"))
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    ledger.append(entry("r2"))
    assert [found.release for found in ledger.entries()] == ["r1", "r2"]


def test_bytes_that_are_no_text_do_not_break_it(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(b"\x00\xff\xfe\n")
    Ledger(tmp_path).append(entry("r1"))
    assert [found.release for found in Ledger(tmp_path).entries()] == ["r1"]


def test_good_releases_are_those_that_were_switched_to_newest_first_each_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for release, phase, result in (
        ("r1", "activate", "good"),
        ("r2", "stage", "good"),
        ("r2", "activate", "returned"),
        ("r3", "activate", "good"),
        ("r4", "activate", "failed"),
        ("r1", "rollback", "good"),
    ):
        ledger.append(entry(release, phase, result))  # type: ignore[arg-type]  # a tuple's words are plain text
    assert ledger.good_releases() == ["r1", "r3"]


def test_the_schema_is_the_one_that_the_last_migration_left(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(entry(phase="migrate", schema_after="0001"))
    ledger.append(entry(phase="migrate", schema_after="0002"))
    ledger.append(entry())
    assert ledger.schema() == "0002"


def test_a_release_is_outgrown_that_a_rollback_left_on_a_newer_schema(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(entry("old", schema_after="0001"))
    ledger.append(entry("new", schema_after="0002"))
    assert not ledger.outgrown("old")
    ledger.append(entry("old", "rollback", schema_after="0002"))
    assert ledger.outgrown("old")
    assert not ledger.outgrown("new")
    assert not ledger.outgrown("never served")


def test_a_phase_that_fails_is_recorded_with_its_sentence(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(UnhealthyError), ledger.phase(entry()):
        raise UnhealthyError("It is sick.", "Mend it.")
    [found] = ledger.entries()
    assert (found.result, found.reason) == ("failed", "It is sick.")


def test_a_phase_that_returned_keeps_its_word(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    mine = entry(result="returned")
    with pytest.raises(UnhealthyError), ledger.phase(mine):
        raise UnhealthyError("It is sick.", "Mend it.")
    assert ledger.entries()[0].result == "returned"


def test_a_phase_that_is_broken_off_is_recorded_too(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(KeyboardInterrupt), ledger.phase(entry()):
        raise KeyboardInterrupt
    assert ledger.entries()[0].reason == "Broken off: KeyboardInterrupt."


def test_a_phase_is_timed_in_seconds(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.phase(entry()):
        pass
    assert 0 <= ledger.entries()[0].seconds < 1
