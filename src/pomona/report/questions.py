"""What a reader asks of a run, answered in words: against what, how sure, from where, on what, at what cost, and what to do next.

The page ties each answer to an element by its id (`QUESTIONS`). Each depends on the record alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pomona.report.answers_table import own_alarm
from pomona.report.choices import prunes_to_zero
from pomona.report.controls import CONTROLS
from pomona.report.figures.sources import by_layer, merged_names
from pomona.report.sentences import POMONA, TARGET_LORA, UNPRUNED, ZERO_SHOT, evidence, scored_examples
from pomona.report.wording import (
    comparison_of,
    counted,
    duration,
    family_size,
    listed,
    may_be_chance,
    metric_label,
    score,
    signed,
    span,
    system_label,
    unit,
    verdict,
)
from pomona.runs.record import RunRecord
from pomona.runs.sizes import said_count

QUESTIONS: Mapping[str, str] = {
    "what-was-merged": "What was merged?",
    "from-where": "From where do the sources come?",
    "on-what": "On what data?",
    "how-good": "How good is the result?",
    "against-what": "Compared with what?",
    "how-sure": "How sure is that?",
    "did-pruning-help": "Did pruning help?",
    "what-it-cost": "What did it cost?",
    "what-next": "What should I do next?",
    "how-to-load": "How do I load it?",
    "how-to-repeat": "How do I repeat it?",
    "what-may-be-wrong": "What may be wrong?",
}
"""Id of the page's element -> the question that it answers."""


def how_sure(record: RunRecord) -> str:
    """The test below the second sentence: intervals and p-values of all that it says, and how to read them."""
    metric = record.primary_metric
    own = record.metrics.get(POMONA, {}).get(metric)
    if own is None:
        return "Nothing was tested."
    parts = [f"{metric_label(metric)} {score(metric, own.value)}, 95% interval {span(metric, own.low, own.high)}"]
    for system in dict.fromkeys([ZERO_SHOT, TARGET_LORA, *(one.baseline for one in record.comparisons if one.system == POMONA)]):
        found = comparison_of(record, POMONA, system, metric)
        if found is not None and (system in (ZERO_SHOT, TARGET_LORA) or system in CONTROLS):
            difference = f"{signed(metric, found.difference)} {unit(metric)}"
            parts.append(f"against {system_label(record, system)} {difference} ({evidence(record, found)})")
    if len(parts) == 1:
        over = scored_examples(record, own.n)
        return f"How sure: {parts[0]}, over {over}. This covers other test examples, not other training seeds."
    size = family_size(record, metric)
    corrected = f", corrected for {counted(size, 'comparison')}, is at most 0.05" if size else " is at most 0.05"
    return (
        f"How sure: {'; '.join(parts)}. Both systems answered the same {scored_examples(record, own.n)}. A difference counts if "
        f"its interval excludes 0 and its p{corrected}. This covers other test examples, not other training seeds."
    )


def against_what(record: RunRecord) -> str:
    """The systems that the result is compared with, and what they are."""
    others = [one for name, one in record.systems.items() if name != POMONA]
    if not others:
        return "The result was compared with nothing."
    return f"The result is compared with {'; '.join(f'{one.label} ({one.description})' for one in others)}."


def from_where(record: RunRecord) -> str:
    """Where each source came from, and its weight."""
    if not record.sources:
        return "There are no source adapters."
    return f"The sources are {listed([f'{one.name} (from {one.origin})' for one in record.sources])}."


_USES = {
    "train": "{} trained the adapter",
    "micro_dev": "{} compared the prune ratios",
    "dev": "{} chose the epoch that was kept",
    "test": "{} were used for the scores alone",
}


def on_what(record: RunRecord) -> str:
    """What each split was used for, and on which model."""
    uses = [text.format(counted(record.splits[name].examples, "example")) for name, text in _USES.items() if name in record.splits]
    if not uses:
        return f"The base model is {record.model}; the splits are unknown."
    return f"The base model is {record.model}. Of the target data, {listed(uses)}; no example is in two of these sets."


def which_source_helped(record: RunRecord) -> str:
    """Where each source counts most, by trained weights or by what pruning kept; or why the run does not tell."""
    for quantity, what in (("merge_weights", "trained merge weights"), ("kept_by_source", "share that pruning kept")):
        cells = by_layer(record, quantity)
        if cells is None or len(record.sources) < 2:
            continue
        layers = sorted({layer for _, layer in cells})
        most: dict[str, list[int]] = {}
        for layer in layers:
            known = {name: value for name in merged_names(record) if (value := cells.get((name, layer))) is not None}
            best = [name for name, value in known.items() if value == max(known.values())]
            if len(best) == 1:
                most.setdefault(best[0], []).append(layer)
        if not most:
            return f"By the {what}, all sources count alike in every layer."
        clauses = [f"{name} counts most in {counted(len(own), 'layer')} ({_ranges(own)})" for name, own in most.items()]
        return f"By the {what}, {listed(clauses)}."
    if len(record.sources) < 2:
        return ""
    return (
        "The merge weights were not trained and pruning did not choose among sources, so the run does not show which source helped "
        "where. `merge.train: coefficients` or `pruning.granularity: source_layer` shows it."
    )


def _ranges(numbers: Sequence[int]) -> str:
    """`0 to 7, 12, 20 to 29`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{one[0]} to {one[-1]}" if len(one) > 1 else str(one[0]) for one in runs)


def what_it_cost(record: RunRecord) -> str:
    """Time, tokens and size."""
    timing = record.timing
    if not timing.total_seconds:
        return "The run has not recorded its cost."
    accelerator, threads = record.environment.get("accelerator"), record.environment.get("threads")
    on = f" on {accelerator}" if accelerator else f" on {counted(threads, 'CPU thread')}" if isinstance(threads, int) else ""
    parts = {"training": timing.train_seconds, "trials of prune ratios": timing.probe_seconds, "scoring": timing.evaluate_seconds}
    spent = [f"{duration(seconds)} of {name}" for name, seconds in parts.items() if seconds]
    text = f"The run took {duration(timing.total_seconds)}{on}" + (f", with {listed(spent)}" if spent else "")
    if tokens := sum(record.tokens.values()):
        text += f", for {said_count(tokens)} tokens"
    own = record.systems.get(POMONA)
    stored = f" The adapter stores {said_count(own.stored_parameters)} parameters." if own and own.stored_parameters else ""
    return f"{text}.{stored}"


def what_next(record: RunRecord) -> str:
    """What to do with the result."""
    if record.status != "done":
        fix = "remove the cause, then go on" if record.status == "failed" else "go on"
        return f"The run is not done: {fix} with `pomona adapt recipe.yaml --output FOLDER --resume`."
    return " ".join(_advice(record))


def _advice(record: RunRecord) -> Iterator[str]:
    metric = record.primary_metric
    if own_alarm(record) is not None:
        yield "Read the answers below first: something in them looks wrong."
    target = comparison_of(record, POMONA, TARGET_LORA, metric)
    label = system_label(record, TARGET_LORA)
    if target is None:
        label = "a LoRA trained on the target alone"
        yield f"Add the baseline `target_lora`: without {label} to compare with, nobody knows whether the sources help."
    elif verdict(target) == "worse":
        yield f"Do not use this adapter: {label}, which needs no sources, is better. Try other sources or a higher learning rate."
    elif verdict(target) == "better" and not may_be_chance(target):
        yield "Use the adapter."
    else:
        yield (
            f"The sources are not shown to help beyond {label}. Add test examples (four times as many halve the interval) or try "
            "other sources before you rely on the gain."
        )
    pruned = comparison_of(record, POMONA, UNPRUNED, metric)
    ratio = record.answer.prune_ratio if record.answer is not None else record.prune_ratio
    if ratio and pruned is not None and (verdict(pruned) != "better" or may_be_chance(pruned)):
        needed = " unless you need the zeros or the smaller size" if prunes_to_zero(record) else ""
        yield f"Pruning brought no sure gain: set `controller: {{name: fixed, prune_ratio: 0}}`{needed}."
    yield "Repeat it under other seeds with `pomona experiment` before you report a gain: another seed draws other examples."


def how_to_load(record: RunRecord) -> str:
    """Commands and Python that load the adapter."""
    model = record.model.replace("\\", "\\\\").replace('"', '\\"')
    return (
        'pomona generate "Your prompt" --adapter FOLDER/adapter\n\n'
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{model}")\n'
        'model = PeftModel.from_pretrained(base, "FOLDER/adapter")'
    )


def how_to_repeat(record: RunRecord) -> str:
    """What gives the same adapter again."""
    seed = record.recipe.get("seed")
    made = record.fingerprints.get("adapter")
    same = f"the adapter with the fingerprint {made[:12]}" if made else "the same adapter"
    begin = f"With seed {seed}, the" if seed is not None else "The"
    return f"{begin} same data, the versions below and the same kind of machine, this command gives {same} again:"


REPEAT = "pomona adapt FOLDER/recipe.yaml --output ANOTHER-FOLDER"
"""The command of `how_to_repeat`."""


def what_may_be_wrong(record: RunRecord, notes: Sequence[str]) -> list[str]:
    """Everything that could mislead: warnings first, then the limits of any single run."""
    alarm = own_alarm(record)
    found = [*([alarm] if alarm else []), *record.warnings, *notes]
    if not found and record.status == "done":
        found.append("The run gave no warnings.")
    for name, cut in record.cut.items():
        if name == "test" and (cut.documents or cut.prompts):
            parts = [counted(n, what) for n, what in ((cut.documents, "document"), (cut.prompts, "prompt")) if n]
            found.append(f"Texts of the test set were shortened: {listed(parts)}.")
    if record.status == "done":
        found.append("This is one run with one seed: another seed may give another score, and its intervals do not cover that.")
    return found
