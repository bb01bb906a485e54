"""A map of values by row and layer, in colours of one scale that is legible without seeing colours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pomona.report.cells import Cell, Column, Row, Table
from pomona.report.figures.svg import LETTER, WIDTH, element, label, tip
from pomona.report.wording import MINUS, MISSING, percent

_STOPS = ((0, 34, 78), (53, 69, 108), (102, 105, 112), (148, 142, 119), (200, 184, 102), (254, 232, 56))
_ROW = 24.0


@dataclass(frozen=True)
class HeatMap:
    """A row for each first key, a column for each layer.

    Args:
        cells: (row, layer) -> value; None and missing cells are blank.
        limits: of the scale of colours; None: those of the values.
        share: values are shares of 1.
    """

    cells: Mapping[tuple[str, int], float | None]
    limits: tuple[float, float] | None = None
    share: bool = False

    @property
    def rows(self) -> list[str]:
        """Names of the rows, in order."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def layers(self) -> list[int]:
        """Layers, in order."""
        return sorted({layer for _, layer in self.cells})

    def draw(self) -> tuple[str, float]:
        """See `Chart.draw`."""
        rows, layers = self.rows, self.layers
        names = [name if len(name) <= 24 else name[:23] + "…" for name in rows]
        left = 14 + LETTER * max(len(name) for name in names)
        low, high = self._limits()
        size, foot = (WIDTH - 8 - left) / len(layers), 4 + _ROW * len(rows)
        parts = [label(left - 8, 4 + _ROW * (index + 0.5) + 4, name, anchor="end") for index, name in enumerate(names)]
        for (row, layer), value in self.cells.items():
            if value is None or not math.isfinite(value):
                continue
            x, y = left + size * layers.index(layer), 4 + _ROW * rows.index(row)
            said = tip(f"{row}, layer {layer}: {self._said(value)}")
            fill = colour((value - low) / (high - low) if high > low else 0.5)
            parts.append(element("rect", said, x=x, y=y, width=max(0.5, size - 1), height=_ROW - 1, fill=fill))
        stride = max(1, -(-len(layers) // 12))
        parts += [
            label(left + size * (index + 0.5), foot + 15, str(layers[index]), anchor="middle")
            for index in range(0, len(layers), stride)
        ]
        parts.append(label((left + WIDTH) / 2, foot + 32, "layer", anchor="middle", kind="axis"))
        width = 120.0
        parts += [
            element("rect", x=left + 5.0 * step, y=foot + 42, width=width / 24 + 0.4, height=9, fill=colour(step / 23))
            for step in range(24)
        ]
        parts.append(label(left - 8, foot + 51, self._said(low), anchor="end"))
        parts.append(label(left + width + 8, foot + 51, self._said(high)))
        return "".join(parts), foot + 58

    def values(self) -> Table:
        """See `Chart.values`."""
        rows: list[Row] = [
            (Cell(str(layer)), *(Cell(self._said(self.cells.get((row, layer)))) for row in self.rows)) for layer in self.layers
        ]
        return Table((Column("Layer"), *(Column(name) for name in self.rows)), tuple(rows))

    def _limits(self) -> tuple[float, float]:
        known = [value for value in self.cells.values() if value is not None and math.isfinite(value)]
        return self.limits or ((min(known), max(known)) if known else (0.0, 1.0))

    def _said(self, value: float | None) -> str:
        if value is None:
            return MISSING
        return percent(value, 1) if self.share else f"{value:.3g}".replace("-", MINUS)


def colour(share: float) -> str:
    """A place in [0, 1] of the scale, from dark blue to yellow."""
    place = min(1.0, max(0.0, share)) * (len(_STOPS) - 1)
    index = min(int(place), len(_STOPS) - 2)
    return "#" + "".join(f"{round(a + (b - a) * (place - index)):02x}" for a, b in zip(*_STOPS[index : index + 2], strict=True))
