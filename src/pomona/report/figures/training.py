"""Training loss and dev loss by step, a line for each system that was trained."""

from __future__ import annotations

from pomona.report.figures.style import Figure, finished, line_styles, plotly_text
from pomona.report.read import RunFolder
from pomona.report.wording import system_label

_MOST_POINTS = 300


def training_loss(run: RunFolder) -> Figure | None:
    """Running mean of the training loss over a twentieth of each system's steps."""
    import plotly.graph_objects as go

    lines: dict[str, list[tuple[int, float]]] = {}
    for step in run.steps:
        if step.loss is not None:
            lines.setdefault(step.system, []).append((step.step, step.loss))
    if not lines:
        return None
    styles = line_styles(run.record, list(lines))
    figure = go.Figure()
    for system, points in lines.items():
        smooth = running_mean([loss for _, loss in points], max(1, len(points) // 20))
        stride = -(-len(points) // _MOST_POINTS)
        kept = [*range(0, len(points) - 1, stride), len(points) - 1]
        figure.add_scatter(
            x=[points[i][0] for i in kept],
            y=[round(smooth[i], 5) for i in kept],
            mode="lines",
            line=styles[system],
            name=plotly_text(system_label(run.record, system), 60),
            hovertemplate="step %{x}: %{y:.3f}",
        )
    return finished(
        figure,
        key="training-loss",
        title="Training loss",
        caption="Running mean over a twentieth of each system's steps.",
        x="optimizer step",
        y="nats per completion token",
    )


def dev_loss(run: RunFolder) -> Figure | None:
    """Dev loss at the end of each epoch; a larger dot marks the lowest of each system."""
    import plotly.graph_objects as go

    lines: dict[str, list[tuple[int, float]]] = {}
    for epoch in run.epochs:
        if epoch.dev_loss is not None:
            lines.setdefault(epoch.system, []).append((epoch.step, epoch.dev_loss))
    if not lines:
        return None
    styles = line_styles(run.record, list(lines))
    figure = go.Figure()
    for system, points in lines.items():
        best = min(range(len(points)), key=lambda i: points[i][1])
        figure.add_scatter(
            x=[step for step, _ in points],
            y=[loss for _, loss in points],
            mode="lines+markers",
            line=styles[system],
            marker={"opacity": 1, "line": {"width": 0}, "size": [12 if i == best else 6 for i in range(len(points))]},
            name=plotly_text(system_label(run.record, system), 60),
            hovertemplate="step %{x}: %{y:.3f}",
        )
    return finished(
        figure,
        key="dev-loss",
        title="Dev loss",
        caption="At the end of each epoch; the large dot is the lowest.",
        x="optimizer step",
        y="nats per completion token",
    )


def running_mean(values: list[float], window: int) -> list[float]:
    """Mean of each value and up to `window - 1` before it.

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
