"""The page of the few-shot experiment, from its records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pomona.data import SplitSizes
from pomona.metrics.holm import holm
from pomona.metrics.seeds import spread
from pomona.runs.environment import environment
from pomona.runs.evaluate import ZERO_SHOT
from pomona.runs.record import Comparison, Estimate, EvaluationRecord
from pomona.tuning.settings import Tuning

if TYPE_CHECKING:
    from experiments.few_shot import Setting

Records = Mapping["Setting", Mapping[int, EvaluationRecord]]


def page(found: Records, tuning: Tuning, sizes: SplitSizes, lora: tuple[int, float, tuple[str, ...]], draws: int) -> str:
    """Markdown: the headline metric of every set, then all metrics, then what the answers look like."""
    rank, alpha, targets = lora
    made = environment()
    packages: object = made["packages"]
    assert isinstance(packages, dict)
    lines = [
        "# Fifty examples, no sources",
        "",
        "Zero shot against a LoRA that is trained on fifty examples of the target: what a merge has to beat. Made by"
        f" `make experiments`, which keeps the scores of each data set; this page was written at commit"
        f" {str(made['git_commit'])[:12]}, with torch {packages['torch']} and transformers {packages['transformers']}.",
        "",
        f"LoRA of rank {rank}, alpha {alpha:g}, on {' and '.join(targets)}; {sizes.train} training examples, {tuning.epochs} epochs"
        f" in batches of {tuning.batch_size}, learning rate {tuning.learning_rate:g}, the epoch with the lowest loss on"
        f" {sizes.dev} dev examples. Greedy answers to {sizes.test} test examples. In brackets 95 % bootstrap intervals ({draws}"
        " draws), by document where questions share one; p from the paired test, after Holm's correction over the rows of the"
        " table. They hold for new test examples and this run, seed 0; another seed may differ by more."
        " These are not the official splits, and documents are cut to the length in the last column: figures from elsewhere"
        " are not comparable.",
        "",
        "| Data | Model | Metric | Zero shot | Target LoRA | Difference | p | Cut to |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
        *_headlines(found),
        "",
    ]
    if any(len(records) > 1 for records in found.values()):
        lines += [*_seeds(found), ""]
    return "\n".join([*lines, *_everything(found), "", *_looks(found), ""])


def _headlines(found: Records) -> list[str]:
    rows, differences = [], []
    for setting, records in found.items():
        record = records[min(records)]
        name = setting.task.metrics[0]
        zero, tuned = (scores[name] for scores in record.metrics.values())
        difference = next(one for one in record.comparisons if one.metric == name)
        differences.append(difference)
        limit = getattr(setting.task, "max_document_characters")  # noqa: B009
        cut = f"{limit} characters ({record.cut_documents} of {record.examples})" if record.cut_documents else "whole"
        rows.append((setting.name, setting.model[0], f"`{name}`", _estimate(zero), _estimate(tuned), _difference(difference), cut))
    corrected = holm([one.p_value for one in differences])
    return [f"| {' | '.join(cells[:6])} | {_p(p)} | {cells[6]} |" for cells, p in zip(rows, corrected, strict=True)]


def _seeds(found: Records) -> list[str]:
    """Mean and deviation over seeds, where there are several."""
    lines = [
        "## Over seeds",
        "",
        "Mean and standard deviation over seeds, which draw the training examples, the initial factors and their order; the test"
        " examples are the same.",
        "",
        "| Data | Metric | Zero shot | Target LoRA | Seeds |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for setting, records in found.items():
        name = setting.task.metrics[0]
        per_seed = [[scores[name].value for scores in record.metrics.values()] for record in records.values()]
        zero, tuned = (spread(values) for values in zip(*per_seed, strict=True))
        deviation = "" if tuned.deviation is None else f" ± {tuned.deviation:.1f}"
        lines.append(f"| {setting.name} | `{name}` | {zero.mean:.1f} | {tuned.mean:.1f}{deviation} | {tuned.n} |")
    return lines


def _everything(found: Records) -> list[str]:
    lines = ["## All metrics", "", "| Data | System | Score |", "| --- | --- | --- |"]
    for setting, records in found.items():
        record = records[min(records)]
        for system, scores in record.metrics.items():
            shown = "; ".join(f"{name} {_estimate(one, 3 if name == 'loss' else 1)}" for name, one in scores.items())
            lines.append(f"| {setting.name} | {_system(system)} | {shown} |")
    return lines


def _looks(found: Records) -> list[str]:
    lines = [
        "## What the answers look like",
        "",
        "Words are the language's own tokens; an answer without an end was as long as the task allows.",
        "",
        "| Data | System | Empty | Without an end | Words | Words / reference's | Repeated |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for setting, records in found.items():
        record = records[min(records)]
        for system, one in record.answers.items():
            shares = (one.empty_share, one.unended_share)
            cells = [
                *(_known(value, "{:.0%}") for value in shares),
                _known(one.mean_words, "{:.1f}"),
                _known(one.length_ratio, "{:.2f}"),
                _known(one.repetition, "{:.0%}"),
            ]
            lines.append(f"| {setting.name} | {_system(system)} | {' | '.join(cells)} |")
    return lines


def _system(name: str) -> str:
    return "zero shot" if name == ZERO_SHOT else "target LoRA"


def _estimate(one: Estimate, digits: int = 1) -> str:
    return f"{one.value:.{digits}f} ({one.low:.{digits}f} to {one.high:.{digits}f})"


def _difference(one: Comparison) -> str:
    return f"{one.difference:+.1f} ({one.low:+.1f} to {one.high:+.1f})".replace("-", "−")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _known(value: float | None, shape: str) -> str:
    return "–" if value is None else shape.format(value)
