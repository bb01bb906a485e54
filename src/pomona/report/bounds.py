"""Whether the prune ratio's interval ends at a bound of the allowed or tried ratios, so that the best ratio may be outside."""

from __future__ import annotations

from pomona.ratios import Answer
from pomona.report.choices import chosen, is_given, is_search
from pomona.report.wording import percent_span
from pomona.runs.record import RunRecord

_NEAR = 0.005
"""A ratio that rounds to the same per cent as the bound is at the bound."""


def bound_reached(record: RunRecord) -> str:
    """The end of a sentence on the interval, or on the groups' intervals; empty if no interval ends at a bound.

    `ends at the lower bound of the allowed range, 10 to 80%, so the best ratio may be lower`, or for whole runs, `ends at the
    highest ratio that was tried, so the best ratio may be higher`. 0 and 1 do not count as bounds, since no ratio is outside them.
    """
    below, above = _ends(record)
    if not below and not above:
        return ""
    beyond = "lower or higher" if below and above else "lower" if below else "higher"
    if is_search(record):
        which = "lowest and at the highest" if below and above else "lowest" if below else "highest"
        return f"ends at the {which} ratio that was tried, so the best ratio may be {beyond}"
    which = "both bounds" if below and above else "the lower bound" if below else "the upper bound"
    allowed = _allowed(record)
    assert allowed is not None
    return f"ends at {which} of the allowed range, {percent_span(*allowed)}, so the best ratio may be {beyond}"


def includes_none(answer: Answer) -> bool:
    """Whether the interval of a ratio that was searched reaches down to no pruning."""
    return answer.low < _NEAR and answer.low < answer.high


def _ends(record: RunRecord) -> tuple[bool, bool]:
    """Whether an interval ends at the lower bound, and whether one ends at the upper bound."""
    answer, allowed = record.answer, _allowed(record)
    if answer is None or allowed is None or is_given(answer):
        return False, False
    spans = [(one.low, one.high) for one in answer.by_group] or [(answer.low, answer.high)]
    least, most = allowed
    return (
        least > 0.0 and any(abs(low - least) < _NEAR for low, _ in spans),
        most < 1.0 and any(abs(high - most) < _NEAR for _, high in spans),
    )


def _allowed(record: RunRecord) -> tuple[float, float] | None:
    """The searched range of ratios; for whole runs, the range of the ratios that were tried. None if it is unknown."""
    answer = record.answer
    if answer is not None and is_search(record):
        tried = [point.prune_ratio for point in answer.curve]
        return min(tried), max(tried)
    ends = [chosen(record, f"controller.prune_ratio_{end}") for end in ("min", "max")]
    least, most = (float(end) if isinstance(end, int | float) else None for end in ends)
    return None if least is None or most is None else (least, most)
