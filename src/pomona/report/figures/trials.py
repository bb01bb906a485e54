"""Whole runs at several prune ratios: the dev score of each run relative to the best run."""

from __future__ import annotations

from pomona.report.bounds import bound_reached
from pomona.report.choices import dev_unit, is_search, select_metric
from pomona.report.figures.plot import Plot, Series
from pomona.report.figures.style import ACCENT, BLUE, Figure, Line
from pomona.report.figures.svg import padded
from pomona.report.wording import lower_is_better, metric_label, percent
from pomona.runs.record import RunRecord


def score_by_ratio(record: RunRecord) -> Figure | None:
    """Each run's mean dev score minus the best run's, with its interval. None if the ratio did not come from whole runs."""
    answer = record.answer
    if answer is None or not is_search(record):
        return None
    curve = answer.curve
    runs = Series(
        "a run, with its 95% interval",
        [point.prune_ratio for point in curve],
        [point.reward for point in curve],
        Line(BLUE, 1.0, "2 3"),
        sizes=[4.5] * len(curve),
        low=[point.low for point in curve],
        high=[point.high for point in curve],
        tips=[f"{percent(one.prune_ratio)}: {one.reward:.4f} ({one.low:.4f} to {one.high:.4f})" for one in curve],
    )
    best = Series(
        f"the best, {percent(answer.prune_ratio)}", [answer.prune_ratio], [0.0], sizes=[8.0], fills=[ACCENT], diamond=True
    )
    metric = select_metric(record)
    score = "minus the dev loss" if lower_is_better(metric) else f"{metric_label(metric)} on the dev set"
    shown = f"Each dot is a whole run: its mean score ({score}) minus the best run's, paired over the dev examples."
    return Figure(
        "score-by-ratio",
        "Dev score over the prune ratio",
        f"{shown} {_told(record)}",
        Plot(
            "prune ratio",
            f"difference to the best, {dev_unit(record)}",
            [runs, best],
            marked=(answer.low, answer.high) if answer.low < answer.high else None,
            zero=True,
            percent_x=True,
            range_x=padded([point.prune_ratio for point in curve]),
        ),
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
