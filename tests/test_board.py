"""The live picture of a run: which host is where, at a glance."""

from __future__ import annotations

import pytest

from plugins.board import Board, Screen, State, duration, some
from tests.terminal import Terminal


def plain(text: str, color: str) -> str:
    return text


def look(board: Board, now: float = 0.0, *, width: int = 80, height: int = 24, final: bool = False) -> list[str]:
    return board.lines(now, width=width, height=height, paint=plain, final=final)


def done(board: Board, host: str, phase: str, state: State = "ok", *, at: float = 0.0, took: float = 1.0) -> None:
    board.begin(host, phase, f"{phase}: Do it", at)
    board.end(host, phase, state, at + took)


def deploying() -> Board:
    """Three hosts: one is at work, one has failed, one waits for the next batch."""
    board = Board()
    board.expect(["app1", "app2", "app3"])
    for host in ("app1", "app2", "app3"):
        done(board, host, "check", took=0.4)
        done(board, host, "preflight", took=0.6)
        done(board, host, "stage", "changed", took=3.6)
    done(board, "app1", "migrate", took=2.0)
    done(board, "app2", "activate", "failed", at=10, took=4.2)
    board.begin("app1", "activate", "activate: Make it serve", 10)
    return board


def test_a_row_for_each_host_a_column_for_each_phase_and_what_is_being_done_now() -> None:
    assert look(deploying(), 22.9) == [
        "",
        "  HOST  check     preflight  stage     migrate   activate  verify",
        "  app1  ✓ 0.4 s   ✓ 0.6 s    ✓ 3.6 s   ✓ 2.0 s   ▸ 12 s    ·",
        "✗ app2  ✓ 0.4 s   ✓ 0.6 s    ✓ 3.6 s   -         ✗ 4.2 s   -",
        "  app3  ✓ 0.4 s   ✓ 0.6 s    ✓ 3.6 s   ·         ·         ·",
        "  … 12 s  activate: Make it serve on app1",
    ]


def test_the_last_picture_shows_nothing_as_being_done_and_no_phase_that_never_began() -> None:
    assert look(deploying(), 22.9, final=True) == [
        "",
        "  HOST  check     preflight  stage     migrate   activate",
        "  app1  ✓ 0.4 s   ✓ 0.6 s    ✓ 3.6 s   ✓ 2.0 s   -",
        "✗ app2  ✓ 0.4 s   ✓ 0.6 s    ✓ 3.6 s   -         ✗ 4.2 s",
        "  app3  ✓ 0.4 s   ✓ 0.6 s    ✓ 3.6 s   -         -",
    ]


@pytest.mark.parametrize("hosts", [["here"], ["app1", "app2"]])
def test_one_phase_leaves_no_last_picture(hosts: list[str]) -> None:
    board = Board()
    for host in hosts:
        done(board, host, "report")
    assert look(board, final=True) == []


def test_one_host_leaves_no_last_picture() -> None:
    board = Board()
    done(board, "here", "stage")
    done(board, "here", "activate")
    assert look(board)
    assert look(board, final=True) == []


def test_before_anything_is_done_there_is_nothing_to_see() -> None:
    board = Board()
    board.expect(["app1", "app2"])
    assert look(board) == []


def test_a_phase_that_nobody_foretold_stands_where_it_happened() -> None:
    board = Board()
    for phase in ("stage", "activate", "return"):
        done(board, "app1", phase)
    assert look(board)[1].split() == ["HOST", "stage", "migrate", "activate", "return", "verify"]


def test_what_was_skipped_did_not_happen() -> None:
    board = Board()
    board.begin("app1", "check", "check: Look", 0)
    board.end("app1", "check", "", 5)
    done(board, "app1", "stage")
    assert look(board, 9)[2].split() == ["app1", "-", "✓", "1.0", "s", "·", "·", "·"]


def test_a_phase_is_what_its_worst_task_was_and_takes_what_all_of_them_did() -> None:
    board = Board()
    done(board, "app1", "stage", "failed", took=1)
    done(board, "app1", "stage", "ok", at=5, took=2)
    assert "✗ 3.0 s" in look(board, 9)[2]


def test_between_two_short_tasks_a_phase_goes_on() -> None:
    board = Board()
    done(board, "app1", "stage", took=1)
    assert "▸ 1 s" in look(board, 1.1)[2]
    assert "✓ 1.0 s" in look(board, 2)[2]


def test_a_host_that_does_not_answer_is_named_so() -> None:
    board = Board()
    done(board, "app1", "stage", "unreachable")
    assert look(board, 9)[2].startswith("✗ app1  unreachable")


def test_hosts_at_different_things_are_told_apart() -> None:
    board = Board()
    board.begin("app1", "stage", "stage: Bring it", 0)
    board.begin("app2", "check", "check: Look", 2)
    assert look(board, 5)[-1] == "  … 5 s  stage: Bring it on app1; 3 s  check: Look on app2"


def many() -> Board:
    board = Board()
    hosts = [f"web{number:02}" for number in range(1, 21)]
    board.expect(hosts)
    for host in hosts[:12]:
        done(board, host, "stage")
    done(board, "web03", "activate", "failed", at=5)
    board.begin("web11", "activate", "activate: Make it serve", 5)
    return board


def test_where_not_all_hosts_have_room_those_stay_that_one_looks_for() -> None:
    lines = look(many(), 9, height=12)
    assert [line[2:7] for line in lines[2:-2]] == ["web03", "web11", "web13", "web14", "web15"]
    assert lines[-2] == "  and 15 more: 5 waiting, 10 good so far"
    assert len(lines) < 12 - 1, "some lines of before stay in sight, and the cursor has one"


def test_the_last_picture_has_all_hosts_since_it_may_scroll() -> None:
    assert len(look(many(), 9, height=12, final=True)) == 2 + 12


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_window(width: int) -> None:
    board = deploying()
    board.begin("a-host-with-a-very-long-name.example.com", "activate", "activate: " + "wait " * 40, 0)
    assert max(map(len, look(board, 9, width=width))) < width


def test_in_a_narrow_window_what_is_over_leaves_first() -> None:
    assert look(deploying(), 22.9, width=42)[1:3] == [
        "  HOST …migrate   activate  verify",
        "  app1  ✓ 2.0 s   ▸ 12 s    ·",
    ]


def test_colours_do_not_move_columns() -> None:
    def loud(text: str, color: str) -> str:
        return f"\x1b[31m{text}\x1b[0m"

    board = deploying()
    terminal = Terminal()
    terminal.write("\n".join(board.lines(22.9, width=80, height=24, paint=loud)))
    assert terminal.lines == look(board, 22.9)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (61.2, "1 m 01 s"), (600, "10 m 00 s")]
)
def test_durations_are_as_exact_as_it_matters(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_few_hosts_are_named_many_counted() -> None:
    assert some(["a", "b"], 2) == "all 2 hosts"
    assert some(["a", "b"], 3) == "a, b"
    assert some(["a", "b", "c", "d"], 5) == "4 of 5 hosts"


def test_a_block_is_redrawn_in_its_place() -> None:
    terminal = Terminal()
    terminal.write("before\n")
    screen = Screen(terminal.write, lambda: (80, 24))
    screen.draw(["one", "two", "three"])
    screen.draw(["1", "2"])
    assert terminal.lines == ["before", "1", "2", ""]


def test_what_is_printed_stands_above_the_block() -> None:
    terminal = Terminal()
    screen = Screen(terminal.write, lambda: (80, 24))
    screen.draw(["one", "two"])
    screen.erase()
    terminal.write("said\n")
    screen.draw(["one", "two"])
    screen.leave()
    terminal.write("the end\n")
    screen.draw(["three"])
    assert terminal.lines == ["said", "one", "two", "the end", "three", ""]


def test_the_same_picture_is_not_drawn_again() -> None:
    written: list[str] = []
    screen = Screen(written.append, lambda: (80, 24))
    screen.draw(["one"])
    screen.draw(["one"])
    assert len(written) == 1


def test_lines_that_a_narrower_window_has_broken_are_counted_as_many() -> None:
    written: list[str] = []
    size = (80, 24)
    screen = Screen(written.append, lambda: size)
    screen.draw(["\x1b[31m" + "x" * 50 + "\x1b[0m", ""])
    size = (30, 24)
    screen.erase()
    assert written[-1] == "\r\x1b[3A\x1b[J"
