"""Whole runs at several prune ratios: the dev score of each run relative to the best run."""

from __future__ import annotations

from pomona.report.bounds import bound_reached
from pomona.report.choices import dev_unit, is_search, select_metric
from pomona.report.figures.style import ACCENT, BAND, BLUE, ZERO_LINE, Figure, finished
from pomona.report.wording import lower_is_better, metric_label, percent
from pomona.runs.record import RunRecord


def score_by_ratio(record: RunRecord) -> Figure | None:
    """Each run's mean dev score minus the best run's, with its interval. None if the ratio did not come from whole runs."""
    import plotly.graph_objects as go

    answer = record.answer
    if answer is None or not is_search(record):
        return None
    figure = go.Figure()
    figure.add_scatter(
        x=[point.prune_ratio for point in answer.curve],
        y=[point.reward for point in answer.curve],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [point.high - point.reward for point in answer.curve],
            "arrayminus": [point.reward - point.low for point in answer.curve],
            "color": BLUE,
            "width": 0,
        },
        mode="lines+markers",
        line={"color": BLUE, "width": 1, "dash": "dot"},
        marker={"size": 9, "color": BLUE},
        name="a run, with its 95% interval",
        customdata=[[point.low, point.high] for point in answer.curve],
        hovertemplate="%{x:.0%}: %{y:.4f} (%{customdata[0]:.4f} to %{customdata[1]:.4f})<extra></extra>",
    )
    figure.add_scatter(
        x=[answer.prune_ratio],
        y=[0.0],
        mode="markers",
        marker={"size": 14, "color": ACCENT, "symbol": "diamond"},
        name=f"the best, {percent(answer.prune_ratio)}",
        hoverinfo="skip",
    )
    if answer.low < answer.high:
        figure.add_vrect(x0=answer.low, x1=answer.high, fillcolor=BAND, line_width=0, layer="below")
    figure.add_hline(y=0, line_color=ZERO_LINE, line_width=1.5)
    figure.update_xaxes(tickformat=".0%", range=_padded([point.prune_ratio for point in answer.curve]))
    metric = select_metric(record)
    score = "minus the dev loss" if lower_is_better(metric) else f"{metric_label(metric)} on the dev set"
    shown = f"Each dot is a whole run: its mean score ({score}) minus the best run's, paired over the dev examples."
    return finished(
        figure,
        key="score-by-ratio",
        title="Dev score over the prune ratio",
        caption=f"{shown} {_told(record)}",
        x="prune ratio",
        y=f"difference to the best, {dev_unit(record)}",
        height=360,
    )


def _told(record: RunRecord) -> str:
    answer = record.answer
    assert answer is not None
    ends = bound_reached(record)
    if answer.low == answer.high:
        told = "Every ratio except the best is significantly worse on the dev set."
        return f"{told} The best {ends.replace('ends at', 'is', 1)}." if ends else told
    told = (
        "The curve is flat: the dev set shows no significant difference between the ratios."
        if answer.flat
        else "The band: from the lowest to the highest ratio not significantly worse than the best, corrected for its selection."
    )
    return f"{told} The interval {ends}." if ends else told


def _padded(ratios: list[float]) -> list[float]:
    margin = 0.06 * (max(ratios) - min(ratios))
    return [min(ratios) - margin, max(ratios) + margin]
