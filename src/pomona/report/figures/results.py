"""Scores of the systems, and paired differences, as dots with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pomona.report.figures.style import ACCENT, BAND, BLUE, GREY, ZERO_LINE, Figure, finished, plotly_text
from pomona.report.sentences import POMONA
from pomona.report.wording import lower_is_better, metric_label, system_label, unit, verdict
from pomona.runs.record import RunRecord

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_COLOURS = {"better": ACCENT, "worse": BLUE, "not significant": GREY}


def scores(record: RunRecord) -> Figure | None:
    """The primary metric of every system with its interval; a band marks Pomona's interval. None if nothing was scored."""
    metric = record.primary_metric
    systems = [system for system in record.systems if metric in record.metrics.get(system, {})]
    if not systems:
        return None
    estimates = [record.metrics[system][metric] for system in systems]
    figure = _dots(
        [system_label(record, system) for system in systems],
        [estimate.value for estimate in estimates],
        [estimate.low for estimate in estimates],
        [estimate.high for estimate in estimates],
        [ACCENT if system == POMONA else GREY for system in systems],
    )
    figure.update_xaxes(range=_padded([bound for estimate in estimates for bound in (estimate.low, estimate.high)]))
    if POMONA in systems:
        own = record.metrics[POMONA][metric]
        figure.add_vrect(x0=own.low, x1=own.high, fillcolor=BAND, line_width=0, layer="below")
    direction = "lower is better" if lower_is_better(metric) else "higher is better"
    return finished(
        figure,
        key="scores",
        title=f"{metric_label(metric)} on the test set",
        caption="Dots with 95% intervals; the band is Pomona's interval. Compare systems by paired differences, not by overlap.",
        x=f"{metric_label(metric)} ({direction})",
        y="",
        height=_height(len(systems)),
    )


def differences(record: RunRecord) -> Figure | None:
    """Pomona minus each baseline on the primary metric, paired, with intervals. None if nothing was compared."""
    metric = record.primary_metric
    found = [entry for entry in record.comparisons if entry.system == POMONA and entry.metric == metric]
    if not found:
        return None
    figure = _dots(
        [system_label(record, entry.baseline) for entry in found],
        [entry.difference for entry in found],
        [entry.low for entry in found],
        [entry.high for entry in found],
        [_COLOURS[verdict(entry)] for entry in found],
    )
    figure.update_xaxes(range=_padded([0.0, *(bound for entry in found for bound in (entry.low, entry.high))]))
    figure.add_vline(x=0, line_color=ZERO_LINE, line_width=1.5)
    side = "left" if lower_is_better(metric) else "right"
    return finished(
        figure,
        key="differences",
        title=f"{system_label(record, POMONA)} minus each baseline",
        caption=f"Paired over the test examples. {side.capitalize()} of 0, Pomona is better; grey: not significant.",
        x=f"difference in {metric_label(metric)}, {unit(metric)}",
        y="",
        height=_height(len(found)),
    )


def _dots(labels: list[str], values: list[float], lows: list[float], highs: list[float], colours: list[str]) -> PlotlyFigure:
    import plotly.graph_objects as go

    figure = go.Figure()
    places = list(range(len(labels)))
    for place, value, low, high, colour in zip(places, values, lows, highs, colours, strict=True):
        figure.add_trace(
            go.Scatter(
                x=[value],
                y=[place],
                mode="markers",
                marker={"size": 10, "color": colour},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [high - value],
                    "arrayminus": [value - low],
                    "color": colour,
                    "width": 0,
                },
                hovertemplate=f"{value:.3g} ({low:.3g} to {high:.3g})<extra></extra>",
                showlegend=False,
            )
        )
    figure.update_yaxes(
        tickmode="array",
        tickvals=places,
        ticktext=[plotly_text(label) for label in labels],
        range=[len(labels) - 0.5, -0.5],
        showgrid=False,
    )
    return figure


def _padded(bounds: list[float]) -> list[float]:
    margin = 0.04 * (max(bounds) - min(bounds)) or 1.0
    return [min(bounds) - margin, max(bounds) + margin]


def _height(rows: int) -> int:
    return 70 + 38 * rows
