"""Scores of the systems, and paired differences, as dots with their intervals."""

from __future__ import annotations

from pomona.report.figures.forest import Bar, Forest
from pomona.report.figures.style import ACCENT, BLUE, GREY, Figure
from pomona.report.sentences import POMONA
from pomona.report.wording import lower_is_better, metric_label, system_label, unit, verdict
from pomona.runs.record import RunRecord

COLOURS = {"better": ACCENT, "worse": BLUE, "not significant": GREY}
"""Verdict on a difference -> its colour."""


def scores(record: RunRecord) -> Figure | None:
    """The primary metric of every system with its interval; a band marks Pomona's interval. None if nothing was scored."""
    metric = record.primary_metric
    found = {system: record.metrics[system][metric] for system in record.systems if metric in record.metrics.get(system, {})}
    if not found:
        return None
    rows = [
        Bar(system_label(record, system), one.value, one.low, one.high, ACCENT if system == POMONA else GREY)
        for system, one in found.items()
    ]
    own = found.get(POMONA)
    direction = "lower is better" if lower_is_better(metric) else "higher is better"
    return Figure(
        "scores",
        f"{metric_label(metric)} on the test set",
        "Dots with 95% intervals; the band is Pomona's interval. Compare systems by paired differences, not by overlap.",
        Forest(f"{metric_label(metric)} ({direction})", rows, band=(own.low, own.high) if own else None),
    )


def differences(record: RunRecord) -> Figure | None:
    """Pomona minus each baseline on the primary metric, paired, with intervals. None if nothing was compared."""
    metric = record.primary_metric
    found = [entry for entry in record.comparisons if entry.system == POMONA and entry.metric == metric]
    if not found:
        return None
    rows = [
        Bar(system_label(record, entry.baseline), entry.difference, entry.low, entry.high, COLOURS[verdict(entry)])
        for entry in found
    ]
    side = "left" if lower_is_better(metric) else "right"
    return Figure(
        "differences",
        f"{system_label(record, POMONA)} minus each baseline",
        f"Paired over the test examples. {side.capitalize()} of 0, Pomona is better; grey: not significant.",
        Forest(f"difference in {metric_label(metric)}, {unit(metric)}", rows, zero=True),
    )
