"""The search for the prune ratio: the ratio and the rewards by round, and the curve that gives the answer."""

from __future__ import annotations

from pomona.report.bounds import bound_reached
from pomona.report.choices import is_search, reward_unit, rewards_loss
from pomona.report.figures.style import ACCENT, BAND, BLUE, DIVERGING, GREY, ZERO_LINE, Figure, finished
from pomona.report.unpruned import compared_with_none, gain_over_none
from pomona.report.wording import percent
from pomona.runs.record import RunRecord

_CAPTIONS = {
    False: "The gain of each ratio over the answer, estimated from all rounds.",
    True: "The gain of one ratio for all layers over the groups' own ratios, estimated from all rounds; p* is their mean.",
}
"""Caption of the curve, by whether each group of layers has its own ratio."""


def ratio_by_round(record: RunRecord) -> Figure | None:
    """The search's mean with a band of one deviation, the ratio in force, the candidates coloured by reward, the commits marked."""
    import plotly.graph_objects as go

    rounds = record.rounds
    if not rounds:
        return None
    x = [seen.index + 1 for seen in rounds]
    band_low = [max(0.0, seen.mean - seen.deviation) for seen in rounds]
    band_high = [min(1.0, seen.mean + seen.deviation) for seen in rounds]
    figure = go.Figure()
    figure.add_scatter(x=x, y=band_low, mode="lines", line={"width": 0}, hoverinfo="skip", showlegend=False)
    figure.add_scatter(
        x=x,
        y=band_high,
        mode="lines",
        line={"width": 0},
        fill="tonexty",
        fillcolor="rgba(47, 127, 193, 0.18)",
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        x=x,
        y=[seen.mean for seen in rounds],
        mode="lines",
        line={"color": BLUE, "width": 2, "dash": "dot"},
        name="mean ± deviation of the search",
    )
    figure.add_scatter(
        x=[x[0] - 1, *x],
        y=[rounds[0].prune_ratio_before, *(seen.prune_ratio_after for seen in rounds)],
        mode="lines",
        line={"color": ACCENT, "width": 2.5, "shape": "hv"},
        name="ratio in force",
    )
    tried = [(seen.index + 1, candidate) for seen in rounds for candidate in seen.candidates]
    largest = max((abs(candidate.reward) for _, candidate in tried), default=0.0) or 1.0
    figure.add_scatter(
        x=[place for place, _ in tried],
        y=[candidate.prune_ratio for _, candidate in tried],
        mode="markers",
        name="candidates",
        customdata=[[candidate.reward, candidate.p_value] for _, candidate in tried],
        hovertemplate="round %{x}: %{y:.0%}, reward %{customdata[0]:.4f}, p = %{customdata[1]:.3f}<extra></extra>",
        marker={
            "size": 9,
            "color": [candidate.reward for _, candidate in tried],
            "colorscale": DIVERGING,
            "cmin": -largest,
            "cmax": largest,
            "line": {"width": 1, "color": GREY},
            "colorbar": {"title": {"text": "reward", "font": {"size": 12}}, "thickness": 8, "outlinewidth": 0, "len": 0.9},
        },
    )
    committed = [seen for seen in rounds if seen.committed]
    figure.add_scatter(
        x=[seen.index + 1 for seen in committed],
        y=[seen.prune_ratio_after for seen in committed],
        mode="markers",
        name="commit",
        marker={"symbol": "diamond-open", "size": 14, "color": ACCENT, "line": {"width": 2}},
        hovertemplate="round %{x}: committed at %{y:.0%}<extra></extra>",
    )
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(range=[x[0] - 1, x[-1] + 0.5], dtick=max(1, len(x) // 10))
    return finished(
        figure,
        key="ratio-by-round",
        title="Prune ratio by round",
        caption="Each round tries a few ratios on the micro dev set; the ratio in force changes if a gain is significant.",
        x="round",
        y="prune ratio",
        height=360,
    )


def reward_by_round(record: RunRecord) -> Figure | None:
    """The reward of every candidate."""
    import plotly.graph_objects as go

    tried = [(seen, candidate) for seen in record.rounds for candidate in seen.candidates]
    if not tried:
        return None
    figure = go.Figure()
    for name, kept, marker in (
        ("candidate", False, {"color": GREY, "size": 8}),
        ("best of a committed round", True, {"color": ACCENT, "size": 10, "symbol": "diamond"}),
    ):
        chosen = [
            (seen, candidate) for seen, candidate in tried if _taken(seen.committed, candidate.reward, seen.candidates) == kept
        ]
        figure.add_scatter(
            x=[seen.index + 1 for seen, _ in chosen],
            y=[candidate.reward for _, candidate in chosen],
            mode="markers",
            name=name,
            marker=marker,
            customdata=[candidate.prune_ratio for _, candidate in chosen],
            hovertemplate="round %{x}: %{customdata:.0%}, reward %{y:.4f}<extra></extra>",
        )
    figure.add_hline(y=0, line_color=ZERO_LINE, line_width=1.5)
    figure.update_xaxes(dtick=max(1, len(record.rounds) // 10))
    cost = "loss" if rewards_loss(record) else "cost"
    before, better = (
        ("without pruning", "no pruning") if compared_with_none(record) else ("at the ratio in force", "the ratio in force")
    )
    return finished(
        figure,
        key="reward-by-round",
        title="Rewards by round",
        caption=f"Micro dev {cost} {before} minus the candidate's {cost}: above 0, the candidate was better than {better}.",
        x="round",
        y=f"reward, {reward_unit(record)}",
        height=360,
    )


def fitted_curve(record: RunRecord) -> Figure | None:
    """The fitted reward over the ratio, and p*, each with its interval. None if the answer has no curve."""
    import plotly.graph_objects as go

    answer = record.answer
    if answer is None or not answer.curve or is_search(record):
        return None
    x = [point.prune_ratio for point in answer.curve]
    figure = go.Figure()
    figure.add_scatter(
        x=x, y=[point.low for point in answer.curve], mode="lines", line={"width": 0}, hoverinfo="skip", showlegend=False
    )
    figure.add_scatter(
        x=x,
        y=[point.high for point in answer.curve],
        mode="lines",
        line={"width": 0},
        fill="tonexty",
        fillcolor="rgba(47, 127, 193, 0.18)",
        name="95% interval",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=x,
        y=[point.reward for point in answer.curve],
        mode="lines",
        line={"color": BLUE, "width": 2.5},
        name="expected reward",
        hovertemplate="%{x:.0%}: %{y:.4f}<extra></extra>",
    )
    figure.add_vrect(x0=answer.low, x1=answer.high, fillcolor=BAND, line_width=0, layer="below")
    figure.add_scatter(
        x=[answer.prune_ratio, answer.prune_ratio],
        y=[min(point.low for point in answer.curve), max(point.high for point in answer.curve)],
        mode="lines",
        line={"color": ACCENT, "width": 2},
        name=f"p* = {percent(answer.prune_ratio)} and its interval",
        hoverinfo="skip",
    )
    figure.update_xaxes(tickformat=".0%")
    flat = "The curve is flat: the data show no significant difference between the ratios."
    told = flat if answer.flat else "The best ratio is significantly better than the worst."
    told += f" An interval {ends}." if (ends := bound_reached(record)) else ""
    told += f" {gain}" if (gain := gain_over_none(record)) else ""
    return finished(
        figure,
        key="fitted-curve",
        title="Reward over the prune ratio",
        caption=f"{_CAPTIONS[bool(answer.by_group)]} {told}",
        x="prune ratio",
        y=f"reward, {reward_unit(record)}",
        height=360,
    )


def _taken(committed: bool, reward: float, candidates: list) -> bool:
    return committed and reward == max(candidate.reward for candidate in candidates)
