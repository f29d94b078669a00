"""The ledger, folded into the history that an operator reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from slipway.edge import Maintenance
from slipway.errors import PreflightError
from slipway.lease import Lease, Leases
from slipway.ledger import Entry, Ledger, Phase, Result
from slipway.status import history, status


def write(root: Path, run: str, release: str, phases: dict[Phase, float], result: Result = "good") -> None:
    (root / "shop/releases").mkdir(parents=True, exist_ok=True)
    last = list(phases)[-1]
    for phase, seconds in phases.items():
        mine: Result = result if phase == last else "good"
        reason = "" if mine == "good" else "It is sick."
        Ledger(root / "shop").append(
            Entry(run=run, by="alice", phase=phase, release=release, result=mine, seconds=seconds, reason=reason)
        )


def test_the_phases_of_one_run_are_one_line_of_history(tmp_path: Path) -> None:
    write(tmp_path, "run-1", "r1", {"stage": 0.5, "migrate": 1.0, "activate": 2.0})
    [run] = history("shop", tmp_path)
    assert (run.verb, run.release, run.result) == ("deploy", "r1", "good")
    assert run.phases == {"stage": 0.5, "migrate": 1.0, "activate": 2.0}


def test_a_run_has_the_result_and_the_reason_of_its_last_phase(tmp_path: Path) -> None:
    write(tmp_path, "run-1", "r1", {"stage": 0.5, "activate": 2.0}, "returned")
    [run] = history("shop", tmp_path)
    assert (run.result, run.reason) == ("returned", "It is sick.")


def test_runs_are_told_apart_and_a_rollback_and_a_stop_have_their_own_name(tmp_path: Path) -> None:
    write(tmp_path, "run-1", "r1", {"activate": 1.0})
    write(tmp_path, "run-2", "r2", {"activate": 1.0})
    write(tmp_path, "run-3", "r1", {"rollback": 1.0})
    write(tmp_path, "run-4", "r1", {"stop": 1.0})
    write(tmp_path, "run-5", "r1", {"recover": 1.0, "stage": 1.0})
    assert [(run.verb, run.release) for run in history("shop", tmp_path)] == [
        ("deploy", "r1"),
        ("deploy", "r2"),
        ("rollback", "r1"),
        ("stop", "r1"),
        ("recover", "r1"),
        ("deploy", "r1"),
    ]


def test_a_run_tells_the_schema_before_and_after_and_for_how_long_clients_were_not_served(tmp_path: Path) -> None:
    write(tmp_path, "run-1", "r1", {"stage": 0.5})
    ledger = Ledger(tmp_path / "shop")
    for entry in (
        Entry(run="run-1", by="alice", phase="migrate", release="r1", schema_before="0001", schema_after="0002"),
        Entry(
            run="run-1",
            by="alice",
            phase="activate",
            release="r1",
            schema_after="0002",
            unavailable_ms=50,
            phases={"start": 1.2, "drain": 0.3},
        ),
    ):
        ledger.append(entry)
    [run] = history("shop", tmp_path)
    assert (run.schema_before, run.schema_after, run.unavailable_ms) == ("0001", "0002", 50)
    assert run.parts == {"start": 1.2, "drain": 0.3}


def test_what_was_not_measured_is_not_said_to_be_nothing(tmp_path: Path) -> None:
    write(tmp_path, "run-1", "r1", {"activate": 1.0})
    assert history("shop", tmp_path)[0].unavailable_ms is None


@pytest.mark.parametrize("look", [history, status])
def test_an_environment_that_is_not_there_has_no_history_and_no_status(
    look: Callable[[str, Path], object], tmp_path: Path
) -> None:
    with pytest.raises(PreflightError, match=r"There is no environment shop on this host\. This host has none yet\."):
        look("shop", tmp_path)
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"


def test_the_run_that_is_at_work_and_maintenance_are_part_of_the_status(tmp_path: Path) -> None:
    (tmp_path / "shop/releases").mkdir(parents=True)
    Leases(tmp_path / "shop").enter(run="run-1", by="alice", what="activate", fence=None)
    closed = Maintenance(since="2025-01-01T12:00:00", by="bob", reason="New disks.", retry_after=60)
    (tmp_path / "shop/maintenance.json").write_bytes(msgspec.json.encode(closed))
    found = status("shop", tmp_path)
    assert found.maintenance == closed
    assert found.lease is not None
    assert (found.lease.run, found.lease.by, found.lease.what, found.lease.fence) == ("run-1", "alice", "activate", 1)
    assert found.lease.seconds == 0, "it is at work, for as long as that takes"


def test_a_run_that_will_call_again_has_the_lease_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "shop/releases").mkdir(parents=True)
    leases = Leases(tmp_path / "shop")
    leases.enter(run="run-1", by="alice", what="stage", fence=None)
    leases.leave(30)
    holder = status("shop", tmp_path).lease
    assert holder is not None
    assert 25 < holder.seconds <= 30


def test_a_lease_that_is_over_is_held_by_nobody(tmp_path: Path) -> None:
    (tmp_path / "shop/releases").mkdir(parents=True)
    (tmp_path / "shop/lease.json").write_bytes(msgspec.json.encode(Lease(run="run-1", by="alice", expires=1.0)))
    assert status("shop", tmp_path).lease is None


def test_an_environment_that_never_served_is_not_healthy(tmp_path: Path) -> None:
    (tmp_path / "shop/releases").mkdir(parents=True)
    found = status("shop", tmp_path)
    assert not found.healthy
    assert found.complaint == "no release has served yet"
