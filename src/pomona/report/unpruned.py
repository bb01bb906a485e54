"""No pruning as the reference of a search: whether candidates were compared with it, and the answer's gain over it."""

from __future__ import annotations

from pomona.report.choices import LOSS, is_search, reward_unit, rewards_loss
from pomona.report.wording import signed, span
from pomona.runs.record import RunRecord


def compared_with_none(record: RunRecord) -> bool:
    """Whether every round compared its candidates with ratio 0."""
    return bool(record.rounds) and all(seen.reference == 0 for seen in record.rounds)


def gain_over_none(record: RunRecord) -> str:
    """A sentence: how much lower the answer's micro dev loss is than the loss at ratio 0, with its interval.

    Empty if ratio 0 was not tried or is the answer, and for whole runs, each of which has a dev score.
    """
    answer = record.answer
    if answer is None or is_search(record) or not answer.curve or answer.curve[0].prune_ratio > 0 or answer.prune_ratio == 0:
        return ""
    none = answer.curve[0]  # its reward: loss at the answer minus loss without pruning
    lower = none.reward <= 0
    low, high = (-none.high, -none.low) if lower else (none.low, none.high)
    size = signed(LOSS, abs(none.reward)).removeprefix("+")
    return (
        f"Ratio 0 was also tried: compared with no pruning, the answer's micro dev {'loss' if rewards_loss(record) else 'cost'} is "
        f"{size} {reward_unit(record)} {'lower' if lower else 'higher'} (95% interval {span(LOSS, low, high)})."
    )
