"""As much of a terminal as it takes to see what an operator sees: lines, a cursor, and what scrolled away."""

from __future__ import annotations

import re

PIECES = re.compile(r"\x1b\[(?P<number>\d*)(?P<final>[A-Z])|\x1b\[[0-9;]*m|(?P<text>[^\x1b\r\n]+)|(?P<control>[\r\n])")


class Terminal:
    """It breaks no lines: whoever writes wider than it is fails."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.columns = columns
        self.rows = rows
        self._lines = [""]
        self._at = 0
        self._column = 0

    def write(self, text: str) -> None:
        position = 0
        for piece in PIECES.finditer(text):
            assert piece.start() == position, f"not understood: {text[position : piece.start()]!r}"
            position = piece.end()
            if piece["text"]:
                self._put(piece["text"])
            elif piece["control"] == "\r":
                self._column = 0
            elif piece["control"] == "\n":
                self._down()
            elif piece["final"]:
                self._do(piece["final"], int(piece["number"] or 1))
        assert position == len(text), f"not understood: {text[position:]!r}"

    def _put(self, text: str) -> None:
        line = self._lines[self._at].ljust(self._column)
        self._lines[self._at] = line[: self._column] + text + line[self._column + len(text) :]
        self._column += len(text)
        assert self._column <= self.columns, f"wider than {self.columns}: {self._lines[self._at]!r}"

    def _down(self) -> None:
        self._at += 1
        self._column = 0
        if self._at == len(self._lines):
            self._lines.append("")

    def _do(self, what: str, number: int) -> None:
        match what:
            case "A":
                top = max(len(self._lines) - self.rows, 0)
                assert self._at - number >= top, "what has scrolled away cannot be written to"
                self._at -= number
            case "K":
                self._lines[self._at] = self._lines[self._at][: self._column]
            case "J":
                self._lines[self._at] = self._lines[self._at][: self._column]
                del self._lines[self._at + 1 :]
            case _:
                raise AssertionError(f"not understood: CSI {what}")

    @property
    def lines(self) -> list[str]:
        """All that stands there, with what has scrolled away."""
        return [line.rstrip() for line in self._lines]
