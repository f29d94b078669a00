"""The table that `make bench` prints."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench.poller import Seen

COLUMNS = ("what", "n", "median", "min to max", "floor", "ratio", "more", "bound", "verdict")


@dataclass(frozen=True)
class Row:
    """One thing measured. `floor` is the same thing done by hand with docker compose; `bound` is what it may be."""

    what: str
    unit: str
    values: Sequence[float]
    floor: Sequence[float] = ()
    bound: float | None = None

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.values)

    @property
    def within(self) -> bool:
        """Whether the median keeps the bound; a row without one does."""
        return self.bound is None or self.median <= self.bound

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of COLUMNS."""
        floor = statistics.median(self.floor) if self.floor else None
        bounded = "within" if self.within else "OVER"
        return (
            self.what,
            str(len(self.values)),
            self._figure(self.median),
            f"{self._number(min(self.values))} to {self._number(max(self.values))}" if len(self.values) > 1 else "-",
            "-" if floor is None else self._figure(floor),
            f"{self.median / floor:.2f}" if floor else "-",
            "-" if floor is None else self._figure(self.median - floor),
            "-" if self.bound is None else self._figure(self.bound),
            "-" if self.bound is None else bounded,
        )

    def _figure(self, value: float) -> str:
        return f"{self._number(value)} {self.unit}".rstrip()

    def _number(self, value: float) -> str:
        return f"{value:.0f}" if value == round(value) or value >= 100 else f"{value:.2f}"


def render(rows: Sequence[Row]) -> str:
    """Lay the rows out under their headings."""
    table = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(cells[index]) for cells in table) for index in range(len(COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in table
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def seen_rows(what: str, kit: Sequence[Seen], hand: Sequence[Seen]) -> Iterator[Row]:
    """What clients saw of `what`, done by the kit and by hand."""
    yield Row(f"{what}: gap", "ms", [1000 * seen.gap for seen in kit], [1000 * seen.gap for seen in hand], bound=50)
    yield Row(f"{what}: not answered", "", [seen.refused for seen in kit], [seen.refused for seen in hand], bound=0)
