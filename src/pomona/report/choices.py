"""What the recipe chose that the report's words depend on. A record of an older run lacks some of it: then it was the default."""

from __future__ import annotations

from collections.abc import Mapping

from pomona.ratios import Answer
from pomona.report.wording import lower_is_better, metric_label
from pomona.runs.record import RunRecord

LOSS = "loss"


def chosen(record: RunRecord, path: str) -> object:
    """The value that stands at a dotted path of the recipe; None where there is none."""
    value: object = record.recipe
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def granularity(record: RunRecord) -> str:
    """What was pruned as a whole: `parameter`, `rank` or `module`."""
    return str(chosen(record, "pruning.granularity") or "parameter")


def prunes_to_zero(record: RunRecord) -> bool:
    """Whether a pruned entry is zero, and not back at the value that it started from."""
    return chosen(record, "pruning.reset") != "initial"


def select_metric(record: RunRecord) -> str:
    """What epochs, and runs at several ratios, were judged by on the dev set: `loss`, or a metric of the answers."""
    return str(chosen(record, "select_by") or LOSS)


def judged_by(record: RunRecord) -> str:
    """The same in words: `dev loss`, or `ROUGE-L on the dev set`."""
    metric = select_metric(record)
    return "dev loss" if metric == LOSS else f"{metric_label(metric)} on the dev set"


def dev_unit(record: RunRecord) -> str:
    """What a difference of dev scores is counted in."""
    metric = select_metric(record)
    return "nats per token" if lower_is_better(metric) else f"points of {metric_label(metric)}"


def rewards_loss(record: RunRecord) -> bool:
    """Whether the rounds were rewarded by the micro dev loss alone."""
    return _reward(record) == {LOSS: 1.0}


def reward_unit(record: RunRecord) -> str:
    """What a reward is counted in: `nats per token`, or a sum such as `0.5 x nats per token + 0.5 x ROUGE-L / 100`."""
    return " + ".join(
        ("" if weight == 1 else f"{weight:g} \N{MULTIPLICATION SIGN} ")
        + ("nats per token" if lower_is_better(name) else f"{metric_label(name)} / 100")
        for name, weight in _reward(record).items()
    )


def _reward(record: RunRecord) -> Mapping[str, float]:
    found = chosen(record, "reward")
    return found if isinstance(found, Mapping) else {LOSS: 1.0}


def is_given(answer: Answer) -> bool:
    """Whether the ratio was set by the recipe, and nothing looked for a better one."""
    return answer.low == answer.high and not answer.curve


def is_search(record: RunRecord) -> bool:
    """Whether the ratio comes from whole runs, one at each ratio, and not from rounds within one."""
    return record.answer is not None and bool(record.answer.curve) and not record.rounds
