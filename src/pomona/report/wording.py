"""How the report writes numbers and names: in one place, so that sentences, tables and figures agree."""

from __future__ import annotations

import re
from datetime import datetime

from pomona.comparison import Comparison
from pomona.ratios import said_ratio
from pomona.runs.record import RunRecord, SystemDescription
from pomona.runs.sizes import said_count, said_kinds, said_training

MINUS = "\N{MINUS SIGN}"
NBSP = "\N{NO-BREAK SPACE}"
MISSING = "\N{EN DASH}"

_ALPHA = 0.05

_METRIC_LABELS = {
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "rouge_lsum": "ROUGE-Lsum",
    "bleu": "BLEU",
    "chrf": "chrF",
    "bert_score": "BERTScore",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "loss": "test loss",
}


def metric_label(metric: str) -> str:
    """The metric's usual name; an unknown name is shown with spaces for underscores."""
    return _METRIC_LABELS.get(metric, metric.replace("_", " "))


def task_label(task: str) -> str:
    """A task's name in words: `extractive QA` for `ExtractiveQa`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", task.replace("_", " ")).split(" ")
    return " ".join("QA" if word in ("Qa", "qa") else word[:1].lower() + word[1:] if word[1:].islower() else word for word in words)


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value is better, which is true only of losses."""
    return metric == "loss" or metric.endswith("_loss")


def unit(metric: str) -> str:
    """The unit of a difference of the metric."""
    return "nats" if lower_is_better(metric) else "points"


def system_label(record: RunRecord, system: str) -> str:
    """The system's label in the record, or its key if it has none. A run at one of several ratios is named by its ratio."""
    if system in record.systems:
        return record.systems[system].label
    base, _, point = system.partition("@")
    if point:  # a training at one point of the grid
        return f"{system_label(record, base)}, {point.replace('_', ' ').replace('=', ' ')}"
    tried = trial_ratio(system)
    return system.replace("_", " ") if tried is None else f"Pomona at {100 * tried:g}%"


def is_unlike(record: RunRecord, system: str) -> bool:
    """Whether the system was trained differently from Pomona in a way that may decide the comparison: modules, size, settings."""
    return system in record.systems and bool(record.systems[system].differences)


def what_it_is_made_of(system: SystemDescription) -> str:
    """Modules, rank, parameters and training on one line; empty if the record lacks them."""
    if not system.adapted:
        return ""
    parts = [said_kinds(system.adapted), f"rank {system.rank}"]
    if system.trained_parameters is not None:
        parts.append(f"{said_count(system.trained_parameters)} trained")
    if system.stored_parameters is not None:
        padding = f" ({said_count(system.padding)} padding)" if system.padding else ""
        parts.append(f"{said_count(system.stored_parameters)} stored{padding}")
    parts += [f"{percent(system.rank_loss, 1)} lost by truncation"] if system.rank_loss else []
    return ", ".join(parts + ([said_training(system.training)] if system.training else []))


def trial_ratio(system: str) -> float | None:
    """The prune ratio of a run at one of several ratios, such as `pomona_0.3`; None for any other system."""
    name, _, ratio = system.partition("_")
    try:
        return float(ratio) if name == "pomona" else None
    except ValueError:
        return None


def score(metric: str, value: float) -> str:
    """A metric's value: one decimal for scores in [0, 100], three for losses."""
    return _plain(value, 3 if lower_is_better(metric) else 1)


def signed(metric: str, value: float) -> str:
    """A difference with its sign, with the digits of `score`, or more digits if it would show as 0."""
    return signed_number(value, _digits(metric, value))


def signed_number(value: float, digits: int) -> str:
    """A number with its sign; a number that rounds to 0 has no sign."""
    text = _plain(value, digits)
    return f"+{text}" if float(f"{value:.{digits}f}") > 0 else text


def span(metric: str, low: float, high: float) -> str:
    """An interval: `24.0 to 30.2`; `unknown` if both ends are equal, since examples that do not vary show no spread.

    A bound that is not 0 never shows as 0, because the text could then contradict the verdict.
    """
    if low == high:
        return "unknown"
    digits = _digits(metric, low, high)
    return f"{_plain(low, digits)} to {_plain(high, digits)}"


def percent(share: float, digits: int = 0) -> str:
    """A share in [0, 1] in percent, by the rule of `said_ratio`."""
    return said_ratio(share, digits).replace("-", MINUS)


def percent_span(low: float, high: float, digits: int = 0) -> str:
    """An interval of shares in percent: `21 to 62%`."""
    return f"{percent(low, digits).removesuffix('%')} to {percent(high, digits)}"


def p_value(value: float) -> str:
    """`0.012`, or `< 0.001`."""
    return f"<{NBSP}0.001" if value < 0.001 else f"{value:.3f}"


def p_equals(value: float) -> str:
    """`p = 0.012`, or `p < 0.001`."""
    text = p_value(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def duration(seconds: float) -> str:
    """Seconds in readable form: `8.4 s`, `9 min 41 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f}{NBSP}s" if seconds < 9.95 else f"{whole}{NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{NBSP}min {whole % 60:02d}{NBSP}s"
    return f"{whole // 3600}{NBSP}h {whole % 3600 // 60:02d}{NBSP}min"


def moment(text: str) -> str:
    """An ISO 8601 time to the minute; any other text unchanged."""
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return text


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 adapter`, `2 adapters`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def listed(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def comparison_of(record: RunRecord, system: str, baseline: str, metric: str) -> Comparison | None:
    """The record's paired difference `system` minus `baseline`, or None if it has none."""
    for found in record.comparisons:
        if (found.system, found.baseline, found.metric) == (system, baseline, metric):
            return found
    return None


def verdict(comparison: Comparison) -> str:
    """The verdict on `system` by the interval: `better`, `worse`, or `not significant` if it includes 0 or is unknown."""
    if comparison.low <= 0 <= comparison.high or comparison.low == comparison.high:
        return "not significant"
    return "better" if (comparison.low > 0) != lower_is_better(comparison.metric) else "worse"


def may_be_chance(comparison: Comparison) -> bool:
    """Whether the interval excludes 0 but the corrected p-value is above 5 %, so that it may be one of many by chance."""
    return verdict(comparison) != "not significant" and comparison.p_holm is not None and comparison.p_holm > _ALPHA


def family_size(record: RunRecord, metric: str) -> int:
    """The number of comparisons for which the p-values of this metric are corrected; 0 in a record without corrected p-values."""
    return sum(found.metric == metric and found.p_holm is not None for found in record.comparisons)


def _digits(metric: str, *values: float) -> int:
    least = 3 if lower_is_better(metric) else 1
    for digits in range(least, least + 3):
        if all(value == 0 or float(f"{value:.{digits}f}") != 0 for value in values):
            return digits
    return least + 2


def _plain(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    if float(f"{value:.{digits}f}") == 0:
        return text.removeprefix("-")
    return text.replace("-", MINUS)
