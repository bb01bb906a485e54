"""Tables of a run's inputs and costs: sources, splits, time, tokens, environment, and the signatures of the metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from pomona.report.cells import Cell, Column, Row, Table
from pomona.report.choices import LOSS, chosen, is_given, is_search, judged_by, reward_unit, rewards_loss, select_metric
from pomona.report.wording import MISSING, counted, duration, listed, metric_label, percent, system_label, trial_ratio
from pomona.runs.record import RunRecord
from pomona.runs.tune import without_point


def sources_table(record: RunRecord) -> Table:
    """The adapters that were merged."""
    rows = [
        (
            Cell(found.name, found.origin),
            Cell(f"{found.weight:g}" if isinstance(found.weight, float) else json.dumps(found.weight)),
            Cell(str(found.rank)),
            Cell(str(found.modules)),
            Cell(found.fingerprint[:12]),
        )
        for found in record.sources
    ]
    columns = (
        Column("Source adapter", numeric=False),
        Column("Weight"),
        Column("Rank"),
        Column("Modules"),
        Column("Fingerprint", numeric=False),
    )
    return Table(columns, tuple(rows))


def choices_table(record: RunRecord) -> Table:
    """How the sources were merged, what was pruned, and how choices were made; fields that the recipe lacks are left out."""
    rows = [(Cell(name), Cell(value)) for name, value in _choices(record)]
    return Table((Column("Choice", numeric=False), Column("In the recipe", numeric=False)), tuple(rows))


def _choices(record: RunRecord) -> Iterator[tuple[str, str]]:
    merge = chosen(record, "merge.method")
    if merge is not None:
        yield "Merged by", ", ".join([str(merge), trained_as(str(merge)), *_merge_notes(record)])
    answer = record.answer
    if isinstance(chosen(record, "pruning.metric"), Mapping) and not (answer and is_given(answer) and answer.prune_ratio == 0):
        yield from _pruning_choices(record)
    if chosen(record, "controller.name") is not None:
        yield "Controller", _searched(record)
    if search := ", ".join(_search_notes(record)):
        yield "Search", search
    if (averaged := _averaged(record)) is not None:
        yield "Weights judged and exported", averaged
    if record.rounds and chosen(record, "reward") is not None:
        yield "Reward of the rounds", "micro dev loss" if rewards_loss(record) else f"{reward_unit(record)}, on the micro dev set"
    if chosen(record, "select_by") is not None:
        name = "Epochs and runs chosen by" if is_search(record) else "Epochs chosen by"
        tolerance = chosen(record, "select_tolerance") or 0.0
        errors = f"{tolerance:g} standard error{'' if tolerance == 1 else 's'}"
        within = f"; within {errors} of the best, by dev loss" if tolerance else ""
        yield name, judged_by(record) if select_metric(record) == LOSS else f"mean {judged_by(record)}{within}"


def _averaged(record: RunRecord) -> str | None:
    """The average over steps, in words; None if the latest weights are exported."""
    kind, begins = chosen(record, "tuning.average"), chosen(record, "tuning.average_from")
    if kind not in ("ema", "uniform"):
        return None
    decay = chosen(record, "tuning.average_decay")
    words = f"exponential moving average over the steps, decay {decay:g}" if kind == "ema" else "mean over the steps"
    share = begins if isinstance(begins, float) else 0.5 * (kind == "uniform")
    return words + (f", without the first {share:.0%} of the run" if share else "")


_ONE_PAIR = "trained as one pair"
MERGED_AS = {
    "concat": "the adapters side by side",
    "linear": "sums of the adapters' own factors",
    **dict.fromkeys(("svd", "ties", "dare_ties", "dare_linear", "della", "breadcrumbs", "magnitude_prune", "knots"), _ONE_PAIR),
    **dict.fromkeys(("core_space", "tsv", "iso_c", "iso_cts", "pico", "ctm", "cart", "robust_merge", "lego"), _ONE_PAIR),
}
"""Method -> what is trained, as the registry says; known here because the registry takes torch a second to load."""


def trained_as(method: str) -> str:
    """The trained quantity, in words."""
    if method in MERGED_AS:
        return MERGED_AS[method]
    from pomona.backbone.trainable import trainable_merges  # a method of someone else

    return trainable_merges[method].title if method in trainable_merges else _ONE_PAIR


def _merge_notes(record: RunRecord) -> Iterator[str]:
    if chosen(record, "merge.target"):
        yield "with the target LoRA"
    frozen = chosen(record, "merge.frozen")
    if isinstance(frozen, list) and frozen:
        yield f"{listed([str(name) for name in frozen])} not trained"
    yield from _stage_notes(record)
    if chosen(record, "merge.weights") is not None:
        yield "weighted inversely to the norms of the updates"
    if chosen(record, "merge.weights_learning_rate") is not None:
        yield "merge weights trained"
    if chosen(record, "merge.paper"):
        yield "without scaling, as published"


def _stage_notes(record: RunRecord) -> Iterator[str]:
    """What is trained, where it is not the factors alone."""
    train = chosen(record, "merge.train")
    gate = "binary gate" if chosen(record, "merge.coefficients.binary") else "coefficient"
    one = f"one {gate} for each adapter and {chosen(record, 'merge.coefficients.unit')}"
    if train == "coefficients":
        yield f"{one} trained, all factors frozen"
    elif isinstance(train, list | Mapping) and "coefficients" in train:
        shares = train.values() if isinstance(train, Mapping) else [1 / len(train)] * len(train)
        stages = [f"{name} ({percent(share)} of the steps)" for name, share in zip(train, shares, strict=True)]
        yield f"trained in stages: {', then '.join(stages)}; {one}"


def _pruning_choices(record: RunRecord) -> Iterator[tuple[str, str]]:
    """The metric and the granularity; of the other settings, those that are not the default."""
    yield "Importance", str(chosen(record, "pruning.metric.name"))
    if chosen(record, "pruning.paper"):
        yield "Norms from", "one norm for each layer, as in the published code"
    for key, (name, usual, words) in _PRUNING.items():
        value = chosen(record, f"pruning.{key}")
        if value not in (None, usual):
            yield name, words.get(str(value), str(value))


def _searched(record: RunRecord) -> str:
    name, ratios = chosen(record, "controller.name"), chosen(record, "controller.prune_ratios")
    return f"{name}, {counted(len(ratios), 'run')} at given ratios" if isinstance(ratios, list) else str(name)


def _search_notes(record: RunRecord) -> Iterator[str]:
    """How the first of two passes differs from the second."""
    if (metric := chosen(record, "search.metric.name")) is not None:
        yield f"by {metric}"
    for key, what in (("epochs", "epoch"), ("accumulation_steps", "batch")):
        if isinstance(value := chosen(record, f"search.{key}"), int):
            yield counted(value, what) + (" a step" if key == "accumulation_steps" else "")
    if isinstance(patience := chosen(record, "search.patience_epochs"), int):
        yield f"stops after {counted(patience, 'epoch')} without a better {judged_by(record)}"
    if (seed := chosen(record, "search.seed")) is not None:
        yield f"seed {seed}" + (" and its own examples" if record.search_splits else "")


_PRUNING: Mapping[str, tuple[str, str | None, Mapping[str, str]]] = {
    "granularity": (
        "Unit of pruning",
        None,
        {
            "parameter": "single entries",
            "rank": "rank-one components",
            "module": "modules",
            "source_rank": "rank-one components of each source",
            "source_layer": "each source's part in a layer",
        },
    ),
    "scope": ("Ranked within", None, {"tensor": "one tensor", "layer": "one layer", "global": "all modules"}),
    "activations": ("Norms from", "streamed", {"full_pass": "a pass over the training set before each selection"}),
    "reset": ("Pruned entries become", "zero", {"initial": "their start values"}),
    "feedback": ("Pruned entries are trained", "search", {"always": "in the whole run"}),
    "schedule": (
        "Ratio is applied",
        "constant",
        {"linear": "by a linear ramp", "cubic": "by a cubic ramp", "once": "at the first step, with one mask for the whole run"},
    ),
}
"""Key of the recipe's `pruning` -> name of the row, the value for which there is no row, and values in words."""


def splits_table(record: RunRecord) -> Table:
    """The splits of the target data, and the numbers of cut documents and prompts if there are any."""
    documents = any(found.documents for found in record.cut.values())
    prompts = any(found.prompts for found in record.cut.values())
    columns = [Column("Split", numeric=False), Column("Examples")]
    columns += [Column("Documents cut")] * documents + [Column("Prompts cut")] * prompts
    rows: list[Row] = []
    for name, split in record.splits.items():
        found = record.cut.get(name)
        cells = [Cell(name.replace("_", " ")), Cell(f"{split.examples:,}")]
        if documents:
            cells.append(_cut_cell(found.documents, found.characters, "character") if found else Cell(MISSING))
        if prompts:
            cells.append(_cut_cell(found.prompts, found.tokens, "token") if found else Cell(MISSING))
        rows.append((*cells, Cell(split.fingerprint[:12])))
    notes = ["Documents are cut to the task's max_document_characters."] * documents
    notes += ["Prompts are cut if prompt and target together are longer than tuning.max_tokens."] * prompts
    return Table((*columns, Column("Fingerprint", numeric=False)), tuple(rows), note=" ".join(notes))


def _cut_cell(count: int, lost: int, what: str) -> Cell:
    return Cell(f"{count:,}", f"{lost:,} {what if lost == 1 else what + 's'}" if lost else "")


def signatures_table(record: RunRecord) -> Table:
    """The signature of each metric: library, version, settings."""
    rows = [(Cell(metric_label(metric)), Cell(signature)) for metric, signature in record.signatures.items()]
    return Table((Column("Metric", numeric=False), Column("Signature", numeric=False)), tuple(rows))


def timing_table(record: RunRecord) -> Table:
    """The time of each part. The parts need not add up to the total, which also includes the work between them."""
    parts = record.timing.model_dump()
    total = parts["total_seconds"]
    rows = [
        (
            Cell(name.removesuffix("_seconds").capitalize()),
            Cell(duration(seconds)),
            Cell(percent(seconds / total)) if total > 0 else Cell(MISSING),
        )
        for name, seconds in parts.items()
        if name != "reused_seconds"
    ]
    if reused := record.timing.reused_seconds:
        rows.append((Cell("Training reused from another cell"), Cell(duration(reused)), Cell(MISSING)))
    rows += [(Cell(f"Tokens, {name}"), Cell(f"{count:,}"), Cell(MISSING)) for name, count in _tokens(record).items()]
    return Table((Column("Part", numeric=False), Column("Time"), Column("Share")), tuple(rows))


def _tokens(record: RunRecord) -> dict[str, int]:
    """Training tokens by system; runs at other ratios than the best share one row, and those at other points of a grid."""
    plain = {name: count for name, count in record.tokens.items() if without_point(name) == name}
    others = [name for name in plain if trial_ratio(name) is not None]
    tokens = {system_label(record, name): count for name, count in plain.items() if name not in others}
    if others:
        tokens[f"Pomona at {counted(len(others), 'other ratio')}"] = sum(record.tokens[name] for name in others)
    if elsewhere := sum(record.tokens.values()) - sum(plain.values()):
        tokens["all systems at points of the grid that were not chosen"] = elsewhere
    return tokens


def facts_table(facts: Mapping[str, object], heading: str) -> Table:
    """Names and values; nested names are joined with dots."""
    rows = [(Cell(name), Cell(value)) for name, value in _flat(facts)]
    return Table((Column(heading, numeric=False), Column("Value", numeric=False)), tuple(rows))


def _flat(facts: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", MISSING if value is None else str(value)))
    return found
