"""Whether the prune ratio's interval ends where nothing beyond was allowed or tried, so that the best ratio may lie there."""

from __future__ import annotations

from pomona.report.choices import chosen, is_given, is_search
from pomona.report.wording import percent_span
from pomona.runs.record import RunRecord

_NEAR = 0.005
"""What rounds to the same per cent is the border itself."""


def border(record: RunRecord) -> str:
    """As the end of a sentence on the interval, or on the groups' intervals; empty where none ends at a border.

    `ends at the lower border of the allowed range, 10 to 80%: the best ratio may lie below`, or of whole runs, `ends at the highest
    ratio that was tried: the best ratio may lie above`. 0 and 1 are no such borders, since nothing lies beyond.
    """
    below, above = _ends(record)
    if not below and not above:
        return ""
    beyond = "beyond" if below and above else "below" if below else "above"
    if is_search(record):
        which = "lowest and at the highest" if below and above else "lowest" if below else "highest"
        return f"ends at the {which} ratio that was tried: the best ratio may lie {beyond}"
    which = "both borders" if below and above else "the lower border" if below else "the upper border"
    allowed = _allowed(record)
    assert allowed is not None
    return f"ends at {which} of the allowed range, {percent_span(*allowed)}: the best ratio may lie {beyond}"


def _ends(record: RunRecord) -> tuple[bool, bool]:
    """Whether an interval ends at the lower and at the upper border."""
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
    """The range within which the ratio was sought: of whole runs, the ratios that were tried. None where it is not known."""
    answer = record.answer
    if answer is not None and is_search(record):
        tried = [point.prune_ratio for point in answer.curve]
        return min(tried), max(tried)
    ends = [chosen(record, f"controller.prune_ratio_{end}") for end in ("min", "max")]
    least, most = (float(end) if isinstance(end, int | float) else None for end in ends)
    return None if least is None or most is None else (least, most)
