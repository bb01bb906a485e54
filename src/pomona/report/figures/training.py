"""Losses and dev scores by step, one line for each trained system."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pomona.report.choices import judged_by, select_metric
from pomona.report.figures.style import GREY, Figure, finished, line_styles, plotly_text
from pomona.report.read import EpochLine, RunFolder
from pomona.report.sentences import POMONA
from pomona.report.wording import metric_label, system_label, trial_ratio
from pomona.runs.record import RunRecord

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_MOST_POINTS = 300
_KEPT = "At the end of each epoch; the large dot marks the epoch that was kept."
_AGAIN = " A dot off the line: the best epoch so far, pruned at the settled ratio and judged again."


def training_loss(run: RunFolder) -> Figure | None:
    """Running mean of the training loss over a twentieth of each system's steps."""
    import plotly.graph_objects as go

    lines: dict[str, list[tuple[int, float]]] = {}
    for step in run.steps:
        if step.loss is not None:
            lines.setdefault(step.system, []).append((step.step, step.loss))
    if not lines:
        return None
    figure = go.Figure()
    for system, style in _drawn(run.record, lines):
        points = lines[system]
        smooth = running_mean([loss for _, loss in points], max(1, len(points) // 20))
        stride = -(-len(points) // _MOST_POINTS)
        kept = [*range(0, len(points) - 1, stride), len(points) - 1]
        figure.add_scatter(x=[points[i][0] for i in kept], y=[round(smooth[i], 5) for i in kept], mode="lines", **style)
    return finished(
        figure,
        key="training-loss",
        title="Training loss",
        caption="Running mean over a twentieth of each system's steps.",
        x="optimizer step",
        y="nats per completion token",
    )


def dev_loss(run: RunFolder) -> Figure | None:
    """Dev loss of each judged epoch, and of an epoch judged again; a larger dot marks the epoch that was kept."""
    figure = _by_epoch(run, lambda epoch: epoch.dev_loss)
    return figure and finished(
        figure, key="dev-loss", title="Dev loss", caption=_caption(run), x="optimizer step", y="nats per completion token"
    )


def dev_score(run: RunFolder) -> Figure | None:
    """The metric by which epochs were judged, if it was not the dev loss."""
    figure = _by_epoch(run, lambda epoch: epoch.dev_score)
    judged = judged_by(run.record)
    return figure and finished(
        figure,
        key="dev-score",
        title=judged[0].upper() + judged[1:],
        caption=_caption(run),
        x="optimizer step",
        y=f"mean {metric_label(select_metric(run.record))}",
    )


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


def _by_epoch(run: RunFolder, value_of: Callable[[EpochLine], float | None]) -> PlotlyFigure | None:
    import plotly.graph_objects as go

    lines: dict[str, list[tuple[EpochLine, float]]] = {}
    for epoch in run.epochs:
        value = value_of(epoch)
        if value is not None:
            lines.setdefault(epoch.system, []).append((epoch, value))
    if not lines:
        return None
    figure = go.Figure()
    for system, style in _drawn(run.record, lines):
        points = lines[system]
        kept = _kept([epoch for epoch, _ in points])
        again = _again([epoch for epoch, _ in points])
        for mode, places in (("lines+markers", [i for i in range(len(points)) if i not in again]), ("markers", again)):
            if places:
                figure.add_scatter(
                    x=[points[i][0].step for i in places],
                    y=[points[i][1] for i in places],
                    mode=mode,
                    marker={"opacity": 1, "line": {"width": 0}, "size": [12 if i == kept else 6 for i in places]},
                    **style | ({"showlegend": False} if places is again else {}),
                )
    return figure


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


def _drawn(record: RunRecord, lines: Mapping[str, object]) -> Iterator[tuple[str, dict[str, object]]]:
    """Every system with its line style. Of runs at several ratios, the best is Pomona's; the others are thin, below the rest."""
    best = record.answer.prune_ratio if record.answer is not None else None
    others = [system for system in lines if trial_ratio(system) not in (None, best)]
    named = {system: POMONA if trial_ratio(system) is not None else system for system in lines if system not in others}
    styles = line_styles(record, list(named.values()))
    for system in others:
        label = plotly_text(system_label(record, system), 60)
        yield (
            system,
            {
                "line": {"color": GREY, "width": 1},
                "opacity": 0.7,
                "name": "Pomona at other prune ratios",
                "legendgroup": "trials",
                "showlegend": system == others[0],
                "hovertemplate": f"step %{{x}}: %{{y:.3f}}<extra>{label}</extra>",
            },
        )
    for system, name in named.items():
        label = plotly_text(system_label(record, name), 60)
        yield system, {"line": styles[name], "name": label, "hovertemplate": "step %{x}: %{y:.3f}"}
