"""The recipe's choices on which the report's words depend. A choice that an older record lacks had its default."""

from __future__ import annotations

from collections.abc import Mapping

from pomona.ratios import Answer
from pomona.report.wording import lower_is_better, metric_label
from pomona.runs.record import RunRecord

LOSS = "loss"


def chosen(record: RunRecord, path: str) -> object:
    """The value at a dotted path of the recipe; None if there is none."""
    value: object = record.recipe
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def granularity(record: RunRecord) -> str:
    """The unit of pruning, as the recipe names it."""
    return str(chosen(record, "pruning.granularity") or "parameter")


def prunes_to_zero(record: RunRecord) -> bool:
    """Whether a pruned entry becomes zero, not its start value."""
    return chosen(record, "pruning.reset") != "initial"


def select_metric(record: RunRecord) -> str:
    """The dev measure that chose between epochs and between runs at several ratios: `loss`, or a metric of the answers."""
    return str(chosen(record, "select_by") or LOSS)


def judged_by(record: RunRecord) -> str:
    """`select_metric` in words: `dev loss`, or `ROUGE-L on the dev set`."""
    metric = select_metric(record)
    return "dev loss" if metric == LOSS else f"{metric_label(metric)} on the dev set"


def dev_unit(record: RunRecord) -> str:
    """The unit of a difference of dev scores."""
    metric = select_metric(record)
    return "nats per token" if lower_is_better(metric) else f"points of {metric_label(metric)}"


def rewards_loss(record: RunRecord) -> bool:
    """Whether the reward of the rounds is the micro dev loss alone."""
    return _reward(record) == {LOSS: 1.0}


def reward_unit(record: RunRecord) -> str:
    """The unit of a reward: `nats per token`, or a sum such as `0.5 x nats per token + 0.5 x ROUGE-L / 100`."""
    return " + ".join(
        ("" if weight == 1 else f"{weight:g} \N{MULTIPLICATION SIGN} ")
        + ("nats per token" if lower_is_better(name) else f"{metric_label(name)} / 100")
        for name, weight in _reward(record).items()
    )


def _reward(record: RunRecord) -> Mapping[str, float]:
    found = chosen(record, "reward")
    return found if isinstance(found, Mapping) else {LOSS: 1.0}


def is_given(answer: Answer) -> bool:
    """Whether the recipe set the ratio, without a search for a better one."""
    return answer.low == answer.high and not answer.curve


def is_search(record: RunRecord) -> bool:
    """Whether the ratio comes from whole runs, one for each ratio, and not from rounds within one run."""
    return record.answer is not None and bool(record.answer.curve) and not record.rounds
