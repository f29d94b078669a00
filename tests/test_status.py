"""The ledger, folded into the history that an operator reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.errors import PreflightError
from slipway.ledger import Entry, Ledger, Phase, Result
from slipway.status import history, status


def write(root: Path, run: str, release: str, phases: dict[Phase, float], result: Result = "good") -> None:
    (root / "shop").mkdir(exist_ok=True)
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
    assert [(run.verb, run.release) for run in history("shop", tmp_path)] == [
        ("deploy", "r1"),
        ("deploy", "r2"),
        ("rollback", "r1"),
        ("stop", "r1"),
    ]


def test_an_environment_that_is_not_there_has_no_history_and_no_status(tmp_path: Path) -> None:
    assert history("shop", tmp_path) == []
    with pytest.raises(PreflightError, match=r"There is no environment shop on this host\. It has none yet\."):
        status("shop", tmp_path)
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"


def test_an_environment_that_never_served_is_not_healthy(tmp_path: Path) -> None:
    (tmp_path / "shop/releases").mkdir(parents=True)
    found = status("shop", tmp_path)
    assert not found.healthy
    assert found.complaint == "no release has served yet"
