"""How fast the data of a backup flows: slowly where processors are short, unless somebody waits for it."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from slipway import pace
from slipway.pace import Pace

DATA = os.urandom(3 * 10**5)


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pace at which these tests take no time."""
    monkeypatch.setattr(pace, "SLOW", 10**6)
    monkeypatch.setattr(pace, "WINDOW", 0.02)
    monkeypatch.setattr(pace, "CHUNK", 10**4)


def waiting(each: float) -> Callable[[], float]:
    """A host on which something waits for a processor so many seconds between two looks at it."""
    looks = itertools.count()
    return lambda: next(looks) * each


def took(one: Pace) -> float:
    """Seconds in which the data came through, whole."""
    to = io.BytesIO()
    began = time.monotonic()
    one.copy(io.BytesIO(DATA), to)
    assert to.getvalue() == DATA
    return time.monotonic() - began


def test_data_flows_slowly_while_processors_are_short() -> None:
    assert took(Pace(lambda: False, waiting(0.1))) > 0.25


def test_data_flows_freely_where_they_are_not() -> None:
    assert took(Pace(lambda: False, waiting(0))) < 0.2


def test_data_flows_freely_where_somebody_waits_for_it() -> None:
    assert took(Pace(lambda: True, waiting(0.1))) < 0.1


def test_data_flows_slowly_where_the_kernel_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "PRESSURE", tmp_path / "none")
    assert took(Pace(lambda: False)) > 0.25


def test_a_command_writes_and_reads_every_byte(tmp_path: Path) -> None:
    one, copied = Pace(lambda: True), tmp_path / "copied"
    with copied.open("wb") as to, one.outward(to) as end:
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.stdout.buffer.write(b'x' * {10**6})"], stdout=end, check=True
        )
    with copied.open("rb") as source, one.inward(source) as end:
        counted = subprocess.run(["wc", "-c"], stdin=end, capture_output=True, check=True)
    assert int(counted.stdout) == 10**6


def test_a_command_need_not_read_all_of_it() -> None:
    with Pace(lambda: True).inward(io.BytesIO(b"x" * 10**6)) as end:
        subprocess.run(["true"], stdin=end, check=True)


@pytest.fixture
def full() -> Iterator[BinaryIO]:
    """A file on a disk that is full."""
    with Path("/dev/full").open("wb", buffering=0) as file:
        yield file


def test_what_cannot_be_written_is_an_error(full: BinaryIO) -> None:
    with pytest.raises(OSError, match="No space left"), Pace(lambda: True).outward(full) as end:
        subprocess.run(["echo", "text"], stdout=end, check=True)


def test_a_command_ends_whose_data_nobody_takes(full: BinaryIO) -> None:
    with pytest.raises(OSError, match="No space left"), Pace(lambda: True).outward(full) as end:
        assert subprocess.run(["yes"], stdout=end, stderr=subprocess.DEVNULL, check=False, timeout=10).returncode


def test_what_is_started_by_one_that_steps_aside_comes_after_all_else() -> None:
    script = (
        "import subprocess; from slipway.pace import step_aside; step_aside(); subprocess.run(['chrt', '--pid', '0'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert "SCHED_IDLE" in done.stdout
