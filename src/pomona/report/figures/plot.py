"""A plot of y over x: lines, dots, intervals and bands."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pomona.report.cells import Cell, Column, Row, Table
from pomona.report.figures.style import Line
from pomona.report.figures.svg import LETTER, WIDTH, Scale, element, label, legend, padded, ticks, tip
from pomona.report.wording import MINUS, MISSING, percent

_MOST_ROWS = 25


@dataclass(frozen=True)
class Series:
    """Points with one name.

    Args:
        name: in the legend and the table.
        x, y: the points.
        line: how they are joined; None: not at all.
        step: keep each y until the next x.
        sizes: radius of each dot; empty: no dots.
        fills: colour of each dot; one for all; empty: the line's.
        diamond: dots are open diamonds.
        low, high: ends of each point's interval; empty: none.
        tips: what is said of each dot.
        legend: whether the legend and the table name it.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    line: Line | None = None
    step: bool = False
    sizes: Sequence[float] = ()
    fills: Sequence[str] = ()
    diamond: bool = False
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    tips: Sequence[str] = ()
    legend: bool = True


@dataclass(frozen=True)
class Band:
    """The area between two lines over x."""

    name: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Plot:
    """Series, bands below them, a range of x that is marked, and lines across.

    Args:
        x, y: what the axes show.
        series: in the order in which they are drawn.
        bands: below all series.
        marked: a range of x.
        zero: whether a line marks y = 0.
        percent_x, percent_y: values are shares.
        whole_x: x counts something.
        range_x, range_y: of the axes; None: of the values.
        height: of the area that holds the points.
    """

    x: str
    y: str
    series: Sequence[Series]
    bands: Sequence[Band] = ()
    marked: tuple[float, float] | None = None
    zero: bool = False
    percent_x: bool = False
    percent_y: bool = False
    whole_x: bool = False
    range_x: tuple[float, float] | None = None
    range_y: tuple[float, float] | None = None
    height: float = field(default=230.0, kw_only=True)

    def draw(self) -> tuple[str, float]:
        """See `Chart.draw`."""
        entries = [(_sign(one), one.name) for one in self.series if one.legend]
        entries += [(element("rect", x=0, y=1, width=22, height=10, class_="band"), band.name) for band in self.bands if band.name]
        names, top = legend(entries, 0.0)
        low_x, high_x = self.range_x or padded([*self._finite("x")], 0.03)
        low_y, high_y = self.range_y or padded([*self._finite("y"), *([0.0] if self.zero else [])])
        across, up = (
            ticks(low_x, high_x, percent=self.percent_x, whole=self.whole_x, most=8),
            ticks(low_y, high_y, percent=self.percent_y),
        )
        left = 26 + LETTER * max((len(one) for one in up.labels), default=1)
        to_x, to_y = Scale(low_x, high_x, left, WIDTH - 10), Scale(low_y, high_y, top + self.height, top + 6)
        foot = top + self.height
        parts = [names]
        for place, text in zip(up.places, up.labels, strict=True):
            parts.append(element("line", x1=left, x2=WIDTH - 10, y1=to_y(place), y2=to_y(place), class_="grid"))
            parts.append(label(left - 6, to_y(place) + 4, text, anchor="end"))
        parts += [label(to_x(place), foot + 16, text, anchor="middle") for place, text in zip(*across, strict=True)]
        parts.append(label((left + WIDTH - 10) / 2, foot + 34, self.x, anchor="middle", kind="axis"))
        middle = top + self.height / 2
        turned = f"rotate(-90 10 {middle:.0f})"
        parts.append(element("text", html.escape(self.y), x=10, y=middle, text_anchor="middle", class_="axis", transform=turned))
        if self.marked is not None:
            start, end = (to_x(one) for one in self.marked)
            parts.append(element("rect", x=start, y=top + 6, width=max(1.0, end - start), height=self.height - 6, class_="mark"))
        for band in self.bands:
            there = [*zip(band.x, band.high, strict=True), *reversed([*zip(band.x, band.low, strict=True)])]
            parts.append(element("path", d=_path([(to_x(x), to_y(y)) for x, y in there]) + "Z", class_="band"))
        if self.zero and low_y <= 0 <= high_y:
            parts.append(element("line", x1=left, x2=WIDTH - 10, y1=to_y(0), y2=to_y(0), class_="zero"))
        for one in self.series:
            parts += _drawn(one, to_x, to_y)
        return "".join(parts), foot + 40

    def values(self) -> Table:
        """See `Chart.values`. Of a long line at most 25 rows are shown, at even distances."""
        named = [one for one in self.series if one.legend and len(one.x)]
        found: dict[float, dict[int, list[str]]] = {}
        for place, one in enumerate(named):
            for index, (x, y) in enumerate(zip(one.x, one.y, strict=True)):
                between = f" ({self._y(one.low[index])} to {self._y(one.high[index])})" if one.low else ""
                found.setdefault(x, {}).setdefault(place, []).append(self._y(y) + between)
        rows_x = sorted(found)
        if len(rows_x) > _MOST_ROWS:
            rows_x = [rows_x[round(i * (len(rows_x) - 1) / (_MOST_ROWS - 1))] for i in range(_MOST_ROWS)]
        rows: list[Row] = [
            (Cell(self._x(x)), *(Cell(", ".join(found[x].get(place, [MISSING]))) for place in range(len(named)))) for x in rows_x
        ]
        return Table((Column(_capital(self.x)), *(Column(one.name) for one in named)), tuple(rows), note=f"Values: {self.y}.")

    def _finite(self, axis: str) -> Iterable[float]:
        for one in self.series:
            yield from (value for value in getattr(one, axis) if math.isfinite(value))
            if axis == "y":
                yield from (value for value in (*one.low, *one.high) if math.isfinite(value))
        for band in self.bands:
            yield from band.x if axis == "x" else (*band.low, *band.high)

    def _x(self, value: float) -> str:
        if self.percent_x:
            return percent(value)
        return f"{value:.0f}" if self.whole_x else f"{value:.4g}"

    def _y(self, value: float) -> str:
        return percent(value, 1) if self.percent_y else f"{value:.4g}".replace("-", MINUS)


def _drawn(one: Series, to_x: Scale, to_y: Scale) -> Iterable[str]:
    places = [(to_x(x), to_y(y)) for x, y in zip(one.x, one.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if one.line is not None and len(places) > 1:
        joined = _steps(places) if one.step else places
        style = {"stroke": one.line.colour, "stroke_width": one.line.width, "stroke_dasharray": one.line.dash or None}
        yield element("path", tip(one.name), d=_path(joined), fill="none", **style)
    colour = one.line.colour if one.line else "currentColor"
    for index, low in enumerate(one.low):
        x = to_x(one.x[index])
        yield element("line", x1=x, x2=x, y1=to_y(low), y2=to_y(one.high[index]), stroke=colour, stroke_width=2)
    for index, size in enumerate(one.sizes):
        if index >= len(places):
            break
        x, y = places[index]
        fill = (one.fills[index] if len(one.fills) > 1 else one.fills[0]) if one.fills else colour
        said = tip(one.tips[index] if one.tips else "")
        if one.diamond:
            yield element("path", said, d=_diamond(x, y, size), class_="open", stroke=fill)
        else:
            yield element("circle", said, cx=x, cy=y, r=size, fill=fill, class_="dot")


def _sign(one: Series) -> str:
    if one.line is not None:
        style = {"stroke": one.line.colour, "stroke_width": one.line.width, "stroke_dasharray": one.line.dash or None}
        return element("path", d="M0 6H22", fill="none", **style)
    fill = one.fills[0] if one.fills else "currentColor"
    if one.diamond:
        return element("path", d=_diamond(11, 6, 6), class_="open", stroke=fill)
    return element("circle", cx=11, cy=6, r=4, fill=fill, class_="dot")


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _steps(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    found = [places[0]]
    for (_, before), (x, y) in itertools.pairwise(places):
        found += [(x, before), (x, y)]
    return found


def _diamond(x: float, y: float, size: float) -> str:
    return f"M{x - size:.1f} {y:.1f}L{x:.1f} {y - size:.1f}L{x + size:.1f} {y:.1f}L{x:.1f} {y + size:.1f}Z"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
