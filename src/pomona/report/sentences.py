"""Three sentences on a run: what was run, how good the result is, and whether pruning helped.

Each sentence depends on the record alone. A difference is called better or worse without reserve only if its 95 % interval
excludes 0 and the p-value corrected for all comparisons on the metric is at most 0.05; otherwise the sentence adds that it may be
chance. The second sentence says in words how sure that is. The figures of the test are in `pomona.report.questions.how_sure`.
"""

from __future__ import annotations

from pomona.comparison import Comparison
from pomona.ratios import Answer
from pomona.report.bounds import bound_reached, includes_none
from pomona.report.choices import chosen, granularity, is_given, is_search, judged_by, prunes_to_zero
from pomona.report.controls import control_clauses
from pomona.report.wording import (
    comparison_of,
    counted,
    family_size,
    listed,
    lower_is_better,
    may_be_chance,
    metric_label,
    p_equals,
    percent,
    percent_span,
    score,
    signed,
    span,
    system_label,
    task_label,
    unit,
    verdict,
)
from pomona.runs.record import RunRecord

POMONA = "pomona"
ZERO_SHOT = "zero_shot"
TARGET_LORA = "target_lora"
UNPRUNED = "merge_finetune"

_FLAT = ", but the curve is flat: the {} shows no significant difference between the ratios"
_BASELINE_NAMES = {ZERO_SHOT: "zero shot", TARGET_LORA: "target LoRA"}
_UNFINISHED = {
    "running": "This run has not finished, so nothing here is a final result",
    "interrupted": "This run was interrupted, so nothing here is a final result",
    "failed": "This run failed, so nothing here is a final result",
}


def three_sentences(record: RunRecord) -> tuple[str, str, str]:
    """The three sentences, in reading order."""
    return what_was_run(record), how_good(record), whether_pruning_helped(record)


def what_was_run(record: RunRecord) -> str:
    """What was merged, on how many examples, on which model."""
    train = _examples(record, "train", "training")
    test = _examples(record, "test", "held-out test")
    names = f" ({listed([source.name for source in record.sources])})" if record.sources else ""
    merged = f"{counted(len(record.sources), 'adapter')}{names}" if record.sources else "no source adapters"
    if record.pool is not None and record.sources:
        merged = f"the best {len(record.sources)} of {counted(len(record.pool.candidates), 'adapter')} by {record.pool.by}{names}"
    merged += " and the target LoRA" if chosen(record, "merge.target") else ""
    trained = "trained its coefficients" if chosen(record, "merge.train") == "coefficients" else "fine-tuned the merge"
    on = f"on {record.model} for the task {task_label(record.task)}"
    if record.status != "done":
        return f"{_UNFINISHED[record.status]}: the plan is to merge {merged} {on} and to fine-tune the merge on {train}."
    return f"Pomona merged {merged} {on}, {trained} on {train}, and tested the result on {test}."


def how_good(record: RunRecord) -> str:
    """The primary metric of Pomona's system, how it compares with zero shot and target LoRA, and in words how sure that is."""
    metric = record.primary_metric
    estimate = record.metrics.get(POMONA, {}).get(metric)
    if estimate is None:
        return "The result has no score on the test set, so its quality is unknown."
    value = score(metric, estimate.value)
    size = f"{value} (lower is better)" if lower_is_better(metric) else f"{value} of 100 points"
    start = f"The result's {metric_label(metric)} is {size} on {scored_examples(record, estimate.n)}"
    clauses: list[str] = []
    missing: list[str] = []
    for baseline, name in _BASELINE_NAMES.items():
        comparison = comparison_of(record, POMONA, baseline, metric)
        if comparison is None:
            missing.append(name)
        else:
            clauses.append(_against(comparison, system_label(record, baseline) + _unlike(record, baseline)))
    clauses += control_clauses(record, POMONA)
    text = start + (f": {'; '.join(clauses)}" if clauses else "")
    return text + (f"; it was not compared with {' or '.join(missing)}." if missing else ".")


def whether_pruning_helped(record: RunRecord) -> str:
    """The prune ratio with its interval, and the effect of pruning on the primary metric of the same merge, fine-tuned."""
    if (prune_ratio := _prune_ratio(record)) is None:
        return _no_ratio(record)
    if prune_ratio == 0:
        return f"{_ratio_clause(record, prune_ratio)}; nothing was pruned, so the result is the unpruned fine-tuned merge."
    comparison = comparison_of(record, POMONA, UNPRUNED, record.primary_metric)
    if comparison is None:
        effect = "the same merge was not evaluated without pruning, so the effect of pruning is unknown"
    else:
        effect = _pruning_clause(record, comparison)
    return f"{_ratio_clause(record, prune_ratio)}; {effect}."


def _prune_ratio(record: RunRecord) -> float | None:
    return record.answer.prune_ratio if record.answer is not None else record.prune_ratio


def _examples(record: RunRecord, split: str, name: str) -> str:
    if split not in record.splits:
        return f"an unknown number of {name} examples"
    return counted(record.splits[split].examples, f"{name} example")


def scored_examples(record: RunRecord, n: int) -> str:
    """`100 test examples`, or `97 of 100 test examples`."""
    test = record.splits.get("test")
    return f"{n} of {test.examples} test examples" if test is not None and n < test.examples else counted(n, "test example")


def _against(comparison: Comparison, label: str) -> str:
    """The difference, the opponent, and how sure it is, for readers without statistics."""
    metric = comparison.metric
    found = verdict(comparison)
    size = f"{signed(metric, abs(comparison.difference)).removeprefix('+')} {unit(metric)}"
    if found != "not significant":
        return f"{size} {found} than {label}, {sureness(comparison)}"
    if comparison.difference == 0:
        return f"no difference from {label}"
    better = "better" if (comparison.difference > 0) != lower_is_better(metric) else "worse"
    return f"no clear difference from {label} ({size} {better}, which may be chance)"


def sureness(comparison: Comparison) -> str:
    """How sure a difference is whose interval excludes 0, in words."""
    if may_be_chance(comparison):
        return "which may be chance, since several comparisons were made"
    p = comparison.p_value if comparison.p_holm is None else comparison.p_holm
    if p < 0.001:
        return "almost certainly not by chance"
    return "very unlikely to be chance" if p < 0.01 else "unlikely to be chance"


def _unlike(record: RunRecord, baseline: str) -> str:
    """How the training of a baseline differed from Pomona's, which alone may explain a difference between the two."""
    found = record.systems[baseline].differences if baseline in record.systems else []
    return f" (trained differently: {'; '.join(found)})" if found else ""


def evidence(record: RunRecord, comparison: Comparison) -> str:
    """`95% interval 1.0 to 7.0, excludes 0, corrected p = 0.012`; the p-value is given only if the interval excludes 0."""
    interval = f"95% interval {span(comparison.metric, comparison.low, comparison.high)}"
    if comparison.low == comparison.high:
        return interval
    if comparison.low <= 0 <= comparison.high:
        return f"{interval}, includes 0"
    corrected = f", corrected {p_equals(comparison.p_holm)}" if comparison.p_holm is not None else ""
    among = f" for {counted(family_size(record, comparison.metric), 'comparison')}" if may_be_chance(comparison) else ""
    return f"{interval}, excludes 0{corrected}{among}"


def _ratio_clause(record: RunRecord, prune_ratio: float) -> str:
    answer = record.answer
    if answer is None or is_given(answer):
        if answer is not None and answer.by_group:
            groups = f"{len(answer.by_group)} groups of layers"
            return f"The prune ratios of {groups} were given, not learned: {percent(prune_ratio)} on average"
        return f"The prune ratio was given, not learned: {percent(prune_ratio)}"
    if record.learned_nothing:
        mean = f" on average over {len(answer.by_group)} groups of layers" if answer.by_group else ""
        ratio = f"the prune ratio, {percent(prune_ratio)}{mean}, is the start value"
        return f"No controller round took place, so nothing was learned: {ratio}"
    if is_search(record):
        return _search_clause(record, answer)
    groups = f"a prune ratio for each of {len(answer.by_group)} groups of layers, {percent(prune_ratio)} on average"
    what = groups if answer.by_group else f"a prune ratio of {percent(prune_ratio)}"
    return f"The run learned {what} ({_interval(record, answer)})" + (_FLAT.format("micro dev set") if answer.flat else "")


def _search_clause(record: RunRecord, answer: Answer) -> str:
    """The best of the ratios that were tried in one run each."""
    tried = (
        f"Of the {len(answer.curve)} prune ratios that were tried, {percent(answer.prune_ratio)} is the best by {judged_by(record)}"
    )
    if answer.low == answer.high:
        sure = f"{tried}, and every other ratio is significantly worse on the dev set"
        return f"{sure}; the best {ends.replace('ends at', 'is', 1)}" if (ends := bound_reached(record)) else sure
    return f"{tried} ({_interval(record, answer)})" + (_FLAT.format("dev set") if answer.flat else "")


def _interval(record: RunRecord, answer: Answer) -> str:
    ends = bound_reached(record)
    whose = "the interval of a group" if answer.by_group else "it"
    none = "; 0% is no pruning" if includes_none(answer) and not ends else ""
    return f"95% interval {percent_span(answer.low, answer.high)}{none}" + (f"; {whose} {ends}" if ends else "")


def _pruning_clause(record: RunRecord, comparison: Comparison) -> str:
    metric = comparison.metric
    found = verdict(comparison)
    unsure = may_be_chance(comparison)
    effect = {"better": "improved", "worse": "worsened", "not significant": "did not significantly change"}[found]
    advice = {
        "better": "use the pruned adapter",
        "worse": "use the unpruned merge",
        "not significant": f"use the unpruned merge{_unless(record)}",
    }["not significant" if found == "better" and unsure else found]
    return (
        f"compared with the same merge fine-tuned without pruning, pruning {effect} {metric_label(metric)}"
        f"{', but this may be chance' if unsure else ''} (paired difference {signed(metric, comparison.difference)} {unit(metric)}"
        f", {evidence(record, comparison)}): {advice}"
    )


def _unless(record: RunRecord) -> str:
    """The reason to prune although it improves no score."""
    if not prunes_to_zero(record):
        return ""
    if granularity(record) == "parameter":
        return ", unless you need the zeros themselves"
    return ", unless you need a smaller adapter"


def _no_ratio(record: RunRecord) -> str:
    if not record.rounds:
        return "The run did not settle on a prune ratio, so the effect of pruning is unknown."
    last = record.rounds[-1]
    return (
        f"The run did not settle on a prune ratio; after {counted(len(record.rounds), 'round')} the ratio in force was "
        f"{percent(last.prune_ratio_after)}, and the effect of pruning is unknown."
    )
