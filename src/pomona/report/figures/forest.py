"""Values with their intervals, one named row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pomona.report.cells import Cell, Column, Row, Table
from pomona.report.figures.svg import LETTER, WIDTH, Scale, element, label, padded, ticks, tip, wrapped
from pomona.report.wording import MINUS

_ROW = 34.0


@dataclass(frozen=True)
class Bar:
    """A row: its name, the value, the ends of its interval (equal: unknown), and its colour."""

    name: str
    value: float
    low: float
    high: float
    colour: str


@dataclass(frozen=True)
class Forest:
    """Rows of values.

    Args:
        x: what they measure.
        rows: from top to bottom.
        band: a range that is marked, or None.
        zero: whether a line marks 0.
    """

    x: str
    rows: Sequence[Bar]
    band: tuple[float, float] | None = None
    zero: bool = False

    def draw(self) -> tuple[str, float]:
        """See `Chart.draw`."""
        names = [wrapped(row.name)[:2] for row in self.rows]
        left = 14 + LETTER * max(len(line) for lines in names for line in lines)
        low, high = padded([*(end for row in self.rows for end in (row.low, row.high, row.value)), *([0.0] if self.zero else [])])
        to_x, foot = Scale(low, high, left, WIDTH - 12), 6 + _ROW * len(self.rows)
        parts: list[str] = []
        if self.band is not None:
            start, end = (to_x(one) for one in self.band)
            parts.append(element("rect", x=start, y=4.0, width=max(1.0, end - start), height=foot - 4, class_="mark"))
        for place, text in zip(*ticks(low, high), strict=True):
            parts.append(element("line", x1=to_x(place), x2=to_x(place), y1=4, y2=foot, class_="grid"))
            parts.append(label(to_x(place), foot + 16, text, anchor="middle"))
        if self.zero:
            parts.append(element("line", x1=to_x(0), x2=to_x(0), y1=4, y2=foot, class_="zero"))
        for index, (row, lines) in enumerate(zip(self.rows, names, strict=True)):
            y = 6 + _ROW * (index + 0.5)
            first = y + 4 - 7 * (len(lines) - 1)
            parts += [label(left - 8, first + 14 * number, line, anchor="end") for number, line in enumerate(lines)]
            said = tip(f"{row.name}: {_number(row.value)}" + (f" ({_between(row)})" if row.low < row.high else ""))
            drawn = said + element("line", x1=to_x(row.low), x2=to_x(row.high), y1=y, y2=y, stroke=row.colour, stroke_width=2)
            parts.append(element("g", drawn + element("circle", cx=to_x(row.value), cy=y, r=5, fill=row.colour)))
        parts.append(label((left + WIDTH - 12) / 2, foot + 34, self.x, anchor="middle", kind="axis"))
        return "".join(parts), foot + 40

    def values(self) -> Table:
        """See `Chart.values`."""
        rows: list[Row] = [
            (Cell(row.name), Cell(_number(row.value)), Cell(_between(row) if row.low < row.high else "unknown"))
            for row in self.rows
        ]
        return Table((Column("System", numeric=False), Column("Value"), Column("95% interval")), tuple(rows), note=f"{self.x}.")


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", MINUS)


def _between(row: Bar) -> str:
    return f"{_number(row.low)} to {_number(row.high)}"
