"""The style of the report's figures: colours that colour-blind readers can distinguish, no boxes, text in the page's colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pomona.report.cells import Table
from pomona.report.figures.svg import whole
from pomona.report.sentences import POMONA, TARGET_LORA, UNPRUNED
from pomona.runs.record import RunRecord

ACCENT, BLUE, GREEN, GREY = "var(--accent-mark)", "var(--blue)", "var(--green)", "var(--grey)"
_OTHERS = ("var(--purple)", GREY, "var(--ochre)", "var(--sky)")
_DASHES = {"dash": "6 4", "dot": "2 3", "dashdot": "7 3 2 3", "longdash": "10 4"}


class Chart(Protocol):
    """What is drawn: numbers and names, from which both the drawing and the table of its values are made."""

    def draw(self) -> tuple[str, float]:
        """The content of an `<svg>`, and its height."""
        ...

    def values(self) -> Table:
        """The numbers that are drawn."""
        ...


@dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Args:
        key: unique on the page.
        title: what it shows.
        caption: how to read it.
        chart: what is drawn.
    """

    key: str
    title: str
    caption: str
    chart: Chart

    @property
    def svg(self) -> str:
        """The drawing; texts that people wrote are escaped."""
        content, height = self.chart.draw()
        return whole(content, height=height, key=self.key, title=self.title, caption=self.caption)

    @property
    def values(self) -> Table:
        """The numbers that are drawn, for readers who do not see the drawing."""
        return self.chart.values()


class Line(NamedTuple):
    """How a line looks: colour, width, and dashes (empty: solid)."""

    colour: str
    width: float = 2.0
    dash: str = ""


def line_styles(record: RunRecord, systems: list[str]) -> dict[str, Line]:
    """A colour and a dash for each system's line; Pomona's is the accent, solid."""
    known = {POMONA: Line(ACCENT, 2.5), UNPRUNED: Line(BLUE, 2.0, _DASHES["dash"]), TARGET_LORA: Line(GREEN, 2.0, _DASHES["dot"])}
    dashes = list(_DASHES.values())
    others = [system for system in dict.fromkeys([*record.systems, *systems]) if system in systems and system not in known]
    styles = {system: Line(_OTHERS[index % len(_OTHERS)], 2.0, dashes[index % len(dashes)]) for index, system in enumerate(others)}
    return {**known, **styles}
