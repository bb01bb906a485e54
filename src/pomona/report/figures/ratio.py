"""The search for the prune ratio: the ratio and the rewards by round, and the curve that gives the answer."""

from __future__ import annotations

from collections.abc import Sequence

from pomona.ratios import CandidateRecord
from pomona.report.bounds import bound_reached
from pomona.report.choices import is_search, reward_unit, rewards_loss
from pomona.report.figures.plot import Band, Plot, Series
from pomona.report.figures.style import ACCENT, BLUE, GREY, Figure, Line
from pomona.report.unpruned import compared_with_none, gain_over_none
from pomona.report.wording import percent
from pomona.runs.record import RunRecord

_WORSE, _EVEN, _BETTER = (33, 102, 172), (201, 201, 201), (217, 99, 30)
_CAPTIONS = {
    False: "The gain of each ratio over the answer, estimated from all rounds.",
    True: "The gain of one ratio for all layers over the groups' own ratios, estimated from all rounds; p* is their mean.",
}
"""Caption of the curve, by whether each group of layers has its own ratio."""


def ratio_by_round(record: RunRecord) -> Figure | None:
    """The search's mean with a band of one deviation, the ratio in force, the candidates coloured by reward, the commits marked."""
    rounds = record.rounds
    if not rounds:
        return None
    x = [seen.index + 1 for seen in rounds]
    band = Band(
        "",
        x,
        [max(0.0, seen.mean - seen.deviation) for seen in rounds],
        [min(1.0, seen.mean + seen.deviation) for seen in rounds],
    )
    tried = [(seen.index + 1, candidate) for seen in rounds for candidate in seen.candidates]
    largest = max((abs(candidate.reward) for _, candidate in tried), default=0.0) or 1.0
    committed = [seen for seen in rounds if seen.committed]
    series = [
        Series("mean ± deviation of the search", x, [seen.mean for seen in rounds], Line(BLUE, 2.0, "2 3")),
        Series(
            "ratio in force",
            [x[0] - 1, *x],
            [rounds[0].prune_ratio_before, *(seen.prune_ratio_after for seen in rounds)],
            Line(ACCENT, 2.5),
            step=True,
        ),
        Series(
            "candidates",
            [place for place, _ in tried],
            [candidate.prune_ratio for _, candidate in tried],
            sizes=[4.5] * len(tried),
            fills=[diverging(candidate.reward / largest) for _, candidate in tried],
            tips=[
                f"round {place}: {percent(one.prune_ratio)}, reward {one.reward:.4f}, p = {one.p_value:.3f}" for place, one in tried
            ],
        ),
        Series(
            "commit",
            [seen.index + 1 for seen in committed],
            [seen.prune_ratio_after for seen in committed],
            sizes=[8.0] * len(committed),
            fills=[ACCENT],
            diamond=True,
            tips=[f"round {seen.index + 1}: committed at {percent(seen.prune_ratio_after)}" for seen in committed],
        ),
    ]
    return Figure(
        "ratio-by-round",
        "Prune ratio by round",
        "Each round tries a few ratios on the micro dev set; the ratio in force changes if a gain is significant. "
        "A candidate is orange if its reward is above 0, blue if it is below, grey near 0.",
        Plot("round", "prune ratio", series, [band], percent_y=True, whole_x=True, range_x=(x[0] - 1, x[-1] + 0.5), height=260.0),
    )


def reward_by_round(record: RunRecord) -> Figure | None:
    """The reward of every candidate."""
    tried = [(seen, candidate) for seen in record.rounds for candidate in seen.candidates]
    if not tried:
        return None
    series: list[Series] = []
    for name, kept, colour, size in (("candidate", False, GREY, 4.0), ("best of a committed round", True, ACCENT, 6.0)):
        chosen = [
            (seen, candidate) for seen, candidate in tried if _taken(seen.committed, candidate.reward, seen.candidates) == kept
        ]
        series.append(
            Series(
                name,
                [seen.index + 1 for seen, _ in chosen],
                [candidate.reward for _, candidate in chosen],
                sizes=[size] * len(chosen),
                fills=[colour],
                diamond=kept,
                tips=[f"round {seen.index + 1}: {percent(one.prune_ratio)}, reward {one.reward:.4f}" for seen, one in chosen],
            )
        )
    cost = "loss" if rewards_loss(record) else "cost"
    before, better = (
        ("without pruning", "no pruning") if compared_with_none(record) else ("at the ratio in force", "the ratio in force")
    )
    return Figure(
        "reward-by-round",
        "Rewards by round",
        f"Micro dev {cost} {before} minus the candidate's {cost}: above 0, the candidate was better than {better}.",
        Plot("round", f"reward, {reward_unit(record)}", series, zero=True, whole_x=True),
    )


def fitted_curve(record: RunRecord) -> Figure | None:
    """The fitted reward over the ratio, and p*, each with its interval. None if the answer has no curve."""
    answer = record.answer
    if answer is None or not answer.curve or is_search(record):
        return None
    curve = answer.curve
    x, low, high = [one.prune_ratio for one in curve], [one.low for one in curve], [one.high for one in curve]
    expected = Series("expected reward", x, [point.reward for point in curve], Line(BLUE, 2.5))
    best = Series(
        f"p* = {percent(answer.prune_ratio)} and its interval",
        [answer.prune_ratio, answer.prune_ratio],
        [min(low), max(high)],
        Line(ACCENT, 2.0),
    )
    flat = "The curve is flat: the data show no significant difference between the ratios."
    told = flat if answer.flat else "The best ratio is significantly better than the worst."
    told += f" An interval {ends}." if (ends := bound_reached(record)) else ""
    told += f" {gain}" if (gain := gain_over_none(record)) else ""
    return Figure(
        "fitted-curve",
        "Reward over the prune ratio",
        f"{_CAPTIONS[bool(answer.by_group)]} {told}",
        Plot(
            "prune ratio",
            f"reward, {reward_unit(record)}",
            [expected, best],
            [Band("95% interval", x, low, high)],
            marked=(answer.low, answer.high),
            percent_x=True,
        ),
    )


def diverging(share: float) -> str:
    """A colour for a value in [-1, 1]: blue, grey at 0, orange."""
    share = min(1.0, max(-1.0, share))
    end = _BETTER if share > 0 else _WORSE
    return "#" + "".join(f"{round(a + (b - a) * abs(share)):02x}" for a, b in zip(_EVEN, end, strict=True))


def _taken(committed: bool, reward: float, candidates: Sequence[CandidateRecord]) -> bool:
    return committed and reward == max(candidate.reward for candidate in candidates)
