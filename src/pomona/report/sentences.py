"""Three sentences on a run: what was run, how good the result is, and whether pruning helped.

Each is a function of the record alone. A difference is called better or worse only where its 95 % interval excludes 0; where the
p-value corrected for all comparisons on the metric is above 0.05 even so, the sentence adds that it may be chance.
"""

from __future__ import annotations

from pomona.comparison import Comparison
from pomona.ratios import Answer
from pomona.report.borders import border
from pomona.report.choices import chosen, granularity, is_given, is_search, judged_by, prunes_to_zero
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
    unit,
    verdict,
)
from pomona.runs.record import RunRecord

POMONA = "pomona"
ZERO_SHOT = "zero_shot"
TARGET_LORA = "target_lora"
UNPRUNED = "merge_finetune"

_BASELINE_NAMES = {ZERO_SHOT: "zero shot", TARGET_LORA: "target LoRA"}
_UNFINISHED = {
    "running": "This run has not finished, so nothing here is a final result",
    "interrupted": "This run was interrupted, so nothing here is a final result",
    "failed": "This run failed, so nothing here is a final result",
}


def three_sentences(record: RunRecord) -> tuple[str, str, str]:
    """The three sentences, in the order in which they are read."""
    return what_was_run(record), how_good(record), whether_pruning_helped(record)


def what_was_run(record: RunRecord) -> str:
    """What was merged, on how many examples, on which model."""
    train = _examples(record, "train", "training")
    test = _examples(record, "test", "test")
    names = f" ({listed([source.name for source in record.sources])})" if record.sources else ""
    merged = f"{counted(len(record.sources), 'adapter')}{names}" if record.sources else "no source adapters"
    merged += " and the target LoRA" if chosen(record, "merge.target") else ""
    on = f"on {record.model} for the task {record.task}"
    if record.status != "done":
        return f"{_UNFINISHED[record.status]}: its plan is to merge {merged} {on} and to fine-tune the merge on {train}."
    return f"Pomona merged {merged} {on}, fine-tuned the merge on {train}, and tested the result on {test} held out from it."


def how_good(record: RunRecord) -> str:
    """The primary metric of Pomona's system, against zero shot and target LoRA, with intervals."""
    metric = record.primary_metric
    estimate = record.metrics.get(POMONA, {}).get(metric)
    if estimate is None:
        return "The result has no score on the test set, so how good it is remains unknown."
    start = (
        f"Its {metric_label(metric)} is {score(metric, estimate.value)}"
        f" (95% interval {span(metric, estimate.low, estimate.high)}, {_scored(record, estimate.n)}"
        f"{', lower is better' if lower_is_better(metric) else ''})"
    )
    clauses: list[str] = []
    missing: list[str] = []
    for baseline, name in _BASELINE_NAMES.items():
        comparison = comparison_of(record, POMONA, baseline, metric)
        if comparison is None:
            missing.append(name)
        else:
            clauses.append(_against(record, comparison, system_label(record, baseline) + _unlike(record, baseline)))
    text = start + (f": {listed(clauses)}" if clauses else "")
    return text + (f"; it was not compared with {' or '.join(missing)}." if missing else ".")


def whether_pruning_helped(record: RunRecord) -> str:
    """The prune ratio with its interval, and what pruning did to the primary metric of the same merge, fine-tuned unpruned."""
    if (prune_ratio := _prune_ratio(record)) is None:
        return _no_ratio(record)
    if prune_ratio == 0:
        found = record.answer is not None and not is_given(record.answer)
        nothing = "; so nothing is pruned" if found else ", which is no pruning at all"
        return f"{_ratio_clause(record, prune_ratio)}{nothing}: the result is the merge, fine-tuned and unpruned."
    comparison = comparison_of(record, POMONA, UNPRUNED, record.primary_metric)
    if comparison is None:
        effect = "the same merge was not evaluated without pruning, so whether pruning helped is unknown"
    else:
        effect = _pruning_clause(record, comparison)
    return f"{_ratio_clause(record, prune_ratio)}; {effect}."


def _prune_ratio(record: RunRecord) -> float | None:
    return record.answer.prune_ratio if record.answer is not None else record.prune_ratio


def _examples(record: RunRecord, split: str, name: str) -> str:
    if split not in record.splits:
        return f"an unknown number of {name} examples"
    return counted(record.splits[split].examples, f"{name} example")


def _scored(record: RunRecord, n: int) -> str:
    test = record.splits.get("test")
    return f"{n} of {test.examples} examples" if test is not None and n < test.examples else counted(n, "example")


def _against(record: RunRecord, comparison: Comparison, label: str) -> str:
    metric = comparison.metric
    found = verdict(comparison)
    if found == "not told apart":
        difference = signed(metric, comparison.difference)
        return f"not told apart from {label} (paired difference {difference}, interval {_evidence(record, comparison)})"
    size = signed(metric, abs(comparison.difference)).removeprefix("+")
    return f"{size} {unit(metric)} {found} than {label} (interval of the paired difference {_evidence(record, comparison)})"


def _unlike(record: RunRecord, baseline: str) -> str:
    """In what a baseline was not trained like Pomona, which may be all that the two differ by."""
    found = record.systems[baseline].differences if baseline in record.systems else []
    return f", which is not trained alike ({'; '.join(found)})" if found else ""


def _evidence(record: RunRecord, comparison: Comparison) -> str:
    """The interval and where it lies; where it excludes 0, the corrected p too: `1.0 to 7.0, excludes 0, corrected p = 0.012`."""
    interval = span(comparison.metric, comparison.low, comparison.high)
    if comparison.low == comparison.high:
        return interval
    if comparison.low <= 0 <= comparison.high:
        return f"{interval}, includes 0"
    corrected = f", corrected {p_equals(comparison.p_holm)}" if comparison.p_holm is not None else ""
    among = f": it may be chance among {counted(family_size(record, comparison.metric), 'comparison')}"
    return f"{interval}, excludes 0{corrected}{among if may_be_chance(comparison) else ''}"


def _ratio_clause(record: RunRecord, prune_ratio: float) -> str:
    answer = record.answer
    if answer is None or is_given(answer):
        if answer is not None and answer.by_group:
            groups = f"{len(answer.by_group)} groups of layers"
            return f"The prune ratios of {groups} were given, not learned: {percent(prune_ratio)} in the mean"
        return f"The prune ratio was given, not learned: {percent(prune_ratio)}"
    if record.learned_nothing:
        mean = f" in the mean of {len(answer.by_group)} groups of layers" if answer.by_group else ""
        ratio = f"the prune ratio, {percent(prune_ratio)}{mean}, is the starting one"
        return f"No controller round took place, so nothing was learned: {ratio}"
    if is_search(record):
        return _search_clause(record, answer)
    groups = f"mean of the prune ratios learned for {len(answer.by_group)} groups of layers"
    what = groups if answer.by_group else "prune ratio learned"
    learned = f"The {what} in the run is {percent(prune_ratio)} ({_interval(record, answer)})"
    return f"{learned}, but the curve is flat: the micro dev set cannot tell the ratios apart" if answer.flat else learned


def _search_clause(record: RunRecord, answer: Answer) -> str:
    """The best of the ratios that had a run each."""
    tried = (
        f"Of the {len(answer.curve)} prune ratios that were tried, {percent(answer.prune_ratio)} is the best by {judged_by(record)}"
    )
    if answer.low == answer.high:
        sure = f"{tried}, and every other one is worse beyond the noise of the dev examples"
        return f"{sure}; it {ends.replace('ends at', 'is', 1)}" if (ends := border(record)) else sure
    interval = f"{tried} ({_interval(record, answer)})"
    return f"{interval}, but the curve is flat: the dev set cannot tell the ratios apart" if answer.flat else interval


def _interval(record: RunRecord, answer: Answer) -> str:
    ends = border(record)
    whose = "that of a group" if answer.by_group else "it"
    return f"95% interval {percent_span(answer.low, answer.high)}" + (f"; {whose} {ends}" if ends else "")


def _pruning_clause(record: RunRecord, comparison: Comparison) -> str:
    metric = comparison.metric
    found = verdict(comparison)
    seems = may_be_chance(comparison)
    effect = {
        "better": "seems to have helped" if seems else "helped",
        "worse": "seems to have hurt" if seems else "hurt",
        "not told apart": "neither helped nor hurt",
    }[found]
    advice = {
        "better": "take the pruned adapter",
        "worse": "take the unpruned merge",
        "not told apart": f"take the unpruned merge{_unless(record)}",
    }["not told apart" if found == "better" and seems else found]
    measurably = " measurably" if found == "not told apart" else ""
    return (
        f"beside the same merge fine-tuned without it, pruning {effect} {metric_label(metric)}{measurably} "
        f"(paired difference {signed(metric, comparison.difference)} {unit(metric)}, interval {_evidence(record, comparison)}): "
        f"{advice}"
    )


def _unless(record: RunRecord) -> str:
    """What pruning is good for where it changes no score."""
    if not prunes_to_zero(record):
        return ""
    if granularity(record) == "parameter":
        return ", unless zeros are wanted for their own sake"
    return ", unless a smaller adapter is wanted for its own sake"


def _no_ratio(record: RunRecord) -> str:
    if not record.rounds:
        return "The run settled on no prune ratio, and what pruning does here is unknown."
    last = record.rounds[-1]
    return (
        f"The run settled on no prune ratio; after {counted(len(record.rounds), 'round')} the ratio in force was "
        f"{percent(last.prune_ratio_after)}, and what pruning does here is unknown."
    )
