"""The style of the report's figures: colours that colour-blind readers can distinguish, no boxes, text in the page's colour.

The page's style sheet sets the colour of text and grid, so that a figure follows light, dark and print without a script.
"""

from __future__ import annotations

import html
import json
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pomona.report.sentences import POMONA, TARGET_LORA, UNPRUNED
from pomona.runs.record import RunRecord

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

ACCENT = "#d9631e"
BLUE = "#2f7fc1"
GREEN = "#1a9e77"
GREY = "#8a8f98"
BAND = "rgba(217, 99, 30, 0.18)"
ZERO_LINE = "rgba(128, 128, 128, 0.7)"
DIVERGING = [[0.0, "#2166ac"], [0.5, "#c9c9c9"], [1.0, "#d9631e"]]
_OTHERS = ("#b565a7", GREY, "#b8860b", "#56b4e9")
_DASHES = ("dash", "dot", "dashdot", "longdash")


@dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Args:
        key: unique on the page.
        title: what it shows.
        caption: how to read it.
        height: in CSS pixels.
        spec: plotly's JSON, `data` and `layout`.
    """

    key: str
    title: str
    caption: str
    height: int
    spec: dict[str, object]


def finished(figure: PlotlyFigure, *, key: str, title: str, caption: str, x: str, y: str, height: int = 320) -> Figure:
    """Apply the report's style to a plotly figure and convert it to plain JSON.

    Args:
        figure: traces, and layout where it differs from the report's style.
        key: as in `Figure`.
        title: as in `Figure`.
        caption: as in `Figure`.
        x: title of the x axis.
        y: title of the y axis.
        height: as in `Figure`.
    """
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif", "size": 12},
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        dragmode=False,
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom", "traceorder": "normal"},
    )
    shared = {
        "fixedrange": True,
        "automargin": True,
        "zeroline": False,
        "gridcolor": "rgba(128, 128, 128, 0.25)",
        "showline": False,
        "ticks": "outside",
        "ticklen": 5,
        "tickcolor": "rgba(0, 0, 0, 0)",
    }
    figure.update_xaxes(title={"text": x, "standoff": 8, "font": {"size": 12}}, **shared)
    figure.update_yaxes(title={"text": y, "standoff": 8, "font": {"size": 12}}, **shared)
    return Figure(key, title, caption, height, json.loads(figure.to_json() or "{}"))


def plotly_text(text: str, width: int = 20) -> str:
    """A user's text for plotly, which reads some HTML: escaped, and wrapped at `width` characters."""
    return "<br>".join(html.escape(line, quote=False) for line in textwrap.wrap(text, width)) or " "


def line_styles(record: RunRecord, systems: list[str]) -> dict[str, dict[str, object]]:
    """A colour and a dash for each system's line; Pomona's is the accent, solid."""
    known: dict[str, dict[str, object]] = {
        POMONA: {"color": ACCENT, "width": 2.5},
        UNPRUNED: {"color": BLUE, "width": 2, "dash": "dash"},
        TARGET_LORA: {"color": GREEN, "width": 2, "dash": "dot"},
    }
    styles: dict[str, dict[str, object]] = {}
    others = [system for system in dict.fromkeys([*record.systems, *systems]) if system in systems and system not in known]
    for index, system in enumerate(others):
        styles[system] = {"color": _OTHERS[index % len(_OTHERS)], "width": 2, "dash": _DASHES[index % len(_DASHES)]}
    return {**known, **styles}
