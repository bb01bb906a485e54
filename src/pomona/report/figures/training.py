"""Losses and dev scores by step, one line for each trained system."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from pomona.report.choices import judged_by, select_metric
from pomona.report.figures.plot import Plot, Series
from pomona.report.figures.style import GREY, Figure, Line, line_styles
from pomona.report.read import EpochLine, RunFolder
from pomona.report.sentences import POMONA
from pomona.report.wording import metric_label, system_label, trial_ratio
from pomona.runs.record import RunRecord

_MOST_POINTS = 300
_KEPT = "At the end of each epoch; the large dot marks the epoch that was kept."
_AGAIN = " A dot off the line: the best epoch so far, pruned at the settled ratio and judged again."


def training_loss(run: RunFolder) -> Figure | None:
    """Running mean of the training loss over a twentieth of each system's steps."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for step in run.steps:
        if step.loss is not None and math.isfinite(step.loss):
            lines.setdefault(step.system, []).append((step.step, step.loss))
    if not lines:
        return None
    series: list[Series] = []
    for system, name, style, named in _drawn(run.record, lines):
        points = lines[system]
        smooth = running_mean([loss for _, loss in points], max(1, len(points) // 20))
        stride = -(-len(points) // _MOST_POINTS)
        kept = [*range(0, len(points) - 1, stride), len(points) - 1]
        series.append(Series(name, [points[i][0] for i in kept], [round(smooth[i], 5) for i in kept], style, legend=named))
    caption = "Running mean over a twentieth of each system's steps."
    chart = Plot("optimizer step", "nats per completion token", series, whole_x=True)
    return Figure("training-loss", "Training loss", caption, chart)


def dev_loss(run: RunFolder) -> Figure | None:
    """Dev loss of each judged epoch, and of an epoch judged again; a larger dot marks the epoch that was kept."""
    series = _by_epoch(run, lambda epoch: epoch.dev_loss)
    chart = Plot("optimizer step", "nats per completion token", series, whole_x=True)
    return Figure("dev-loss", "Dev loss", _caption(run), chart) if series else None


def dev_score(run: RunFolder) -> Figure | None:
    """The metric by which epochs were judged, if it was not the dev loss."""
    series = _by_epoch(run, lambda epoch: epoch.dev_score)
    judged = judged_by(run.record)
    chart = Plot("optimizer step", f"mean {metric_label(select_metric(run.record))}", series, whole_x=True)
    return Figure("dev-score", judged[0].upper() + judged[1:], _caption(run), chart) if series else None


def running_mean(values: list[float], window: int) -> list[float]:
    """Mean of each value and up to `window - 1` values before it.

    Args:
        values: any number of them.
        window: >= 1.
    """
    means: list[float] = []
    total = 0.0
    for index, value in enumerate(values):
        total += value - (values[index - window] if index >= window else 0.0)
        means.append(total / min(index + 1, window))
    return means


def _by_epoch(run: RunFolder, value_of: Callable[[EpochLine], float | None]) -> list[Series]:
    lines: dict[str, list[tuple[EpochLine, float]]] = {}
    for epoch in run.epochs:
        value = value_of(epoch)
        if value is not None and math.isfinite(value):
            lines.setdefault(epoch.system, []).append((epoch, value))
    series: list[Series] = []
    for system, name, style, named in _drawn(run.record, lines):
        points = lines[system]
        kept = _kept([epoch for epoch, _ in points])
        again = _again([epoch for epoch, _ in points])
        for joined, places in ((style, [i for i in range(len(points)) if i not in again]), (None, again)):
            if places:
                x, y = [points[i][0].step for i in places], [points[i][1] for i in places]
                sizes = [6.0 if i == kept else 3.0 for i in places]
                tips = [f"{name}, epoch {points[i][0].epoch:g}: {points[i][1]:.4g}" for i in places]
                shown = named and joined is not None
                series.append(Series(name, x, y, joined, sizes=sizes, fills=[style.colour], tips=tips, legend=shown))
    return series


def _again(epochs: Sequence[EpochLine]) -> list[int]:
    """The indices of epochs that occurred before."""
    return [place for place, epoch in enumerate(epochs) if epoch.epoch in {earlier.epoch for earlier in epochs[:place]}]


def _caption(run: RunFolder) -> str:
    systems = {epoch.system for epoch in run.epochs}
    again = any(_again([epoch for epoch in run.epochs if epoch.system == system]) for system in systems)
    return _KEPT + (_AGAIN if again else "")


def _kept(epochs: Sequence[EpochLine]) -> int | None:
    """The epoch that was exported: the one that the last line names, or the last one that was better than all earlier ones."""
    if epochs and (named := epochs[-1].kept_epoch) is not None:
        return max((place for place, epoch in enumerate(epochs) if epoch.epoch == named), default=None)
    return max((place for place, epoch in enumerate(epochs) if epoch.best), default=None)


def _drawn(record: RunRecord, lines: Mapping[str, object]) -> Iterator[tuple[str, str, Line, bool]]:
    """Every system with its name, its line, and whether the legend has it.

    Of runs at several ratios, the best is Pomona's; the others are thin, below the rest, and share one entry of the legend.
    """
    best = record.answer.prune_ratio if record.answer is not None else None
    others = [system for system in lines if trial_ratio(system) not in (None, best)]
    named = {system: POMONA if trial_ratio(system) is not None else system for system in lines if system not in others}
    styles = line_styles(record, list(named.values()))
    for system in others:
        first = system == others[0]
        yield system, "Pomona at other prune ratios" if first else system_label(record, system), Line(GREY, 1.0), first
    for system, name in named.items():
        yield system, system_label(record, name), styles[name], True
