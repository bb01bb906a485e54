"""Score adapters, or answers that are already there, on data, without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pomona.adapters import Adapter, check_compatible, check_finite, read_adapter
from pomona.backbone.base_copies import proven_copies
from pomona.backbone.base_modules import modules_of
from pomona.backbone.decoding import Decoding
from pomona.backbone.load import Backbone
from pomona.data import Example, fingerprint
from pomona.data.tasks import Task
from pomona.errors import InputError
from pomona.evaluation.answers import Answers, answer
from pomona.evaluation.compare import compare, corrected
from pomona.evaluation.scores import example_groups, make_metrics, score
from pomona.metrics import Metric
from pomona.metrics.script import script_warning
from pomona.runs.encoding import answering_warnings, encode_examples
from pomona.runs.record import EvaluationRecord
from pomona.runs.record_results import answers_record, estimate
from pomona.tuning.progress import Progress, Silent

ZERO_SHOT = "zero_shot"
MOST_TOKENS = 2048
"""Longest prompt and answer together where nothing else is said, if the model's context is as long."""


def evaluate(
    backbone: Backbone,
    adapters: Sequence[Path | str],
    examples: Sequence[Example],
    task: Task,
    *,
    metrics: Sequence[str | Mapping[str, object]] | None = None,
    batch_size: int = 32,
    max_tokens: int | None = None,
    draws: int = 2000,
    seed: int = 0,
    decoding: Decoding | None = None,
    progress: Progress | None = None,
) -> EvaluationRecord:
    """The scores of the bare model and of each adapter on it, with 95 % bootstrap intervals, and every pair of these compared.

    Args:
        backbone: the model.
        adapters: PEFT folders; the path is the system's name.
        examples: what to answer, one or more.
        task: how to stop, how to read an answer, and which metrics judge it.
        metrics: names, or names with parameters; the task's own by default.
        batch_size: examples a batch.
        max_tokens: longest prompt and answer together; by default the model's context, but no more than `MOST_TOKENS`.
        draws: bootstrap draws.
        seed: of the bootstrap.
        decoding: greedy by default.
        progress: shown to a person.

    Raises:
        InputError: an adapter that cannot be read or does not fit the model; an unknown metric; prompts without room.
    """
    chosen = ready_metrics(metrics or task.metrics, task.language)
    given = read_adapters(adapters)
    about = []
    for adapter in given.values():
        about += check_compatible([adapter], modules_of(backbone.model), backbone.base)
        proven_copies(adapter, backbone)
    progress = progress or Silent()
    max_tokens = max_tokens or min(backbone.context_tokens or MOST_TOKENS, MOST_TOKENS)
    answering = answering_warnings(examples, backbone, task, max_tokens, "the data")
    encoding = encode_examples(examples, backbone, max_tokens, "the data", section="").warnings
    warnings = list(dict.fromkeys([*backbone.warnings, *about, *answering, *encoding]))
    for warning in warnings:
        progress.warn(warning)
    systems: dict[str, Adapter | None] = {ZERO_SHOT: None, **given}
    answers = {
        name: answer(
            backbone,
            adapter,
            examples,
            task,
            batch_size=batch_size,
            max_tokens=max_tokens,
            progress=progress,
            label=name,
            decoding=decoding,
        )
        for name, adapter in systems.items()
    }
    return backbone.engine.on_main(
        lambda: evaluation_record(
            answers, examples, task, chosen, model=backbone.name, draws=draws, seed=seed, every_pair=True, warnings=warnings
        )
    )


def read_adapters(paths: Sequence[Path | str]) -> dict[str, Adapter]:
    """Path -> adapter.

    Raises:
        InputError: one that cannot be read or holds NaN; one whose path is the bare model's name.
    """
    given = {str(path): read_adapter(path) for path in paths}
    if ZERO_SHOT in given:
        raise InputError("is what the bare model is called", field="adapter", value=ZERO_SHOT, fix="Give the folder's whole path")
    for adapter in given.values():
        check_finite(adapter)
    return given


def score_predictions(
    predictions: Mapping[str, Sequence[str | None]],
    examples: Sequence[Example],
    task: Task,
    *,
    metrics: Sequence[str | Mapping[str, object]] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> EvaluationRecord:
    """The scores of answers that are already there, and each later system against the first.

    Args:
        predictions: system -> one answer an example, as it was generated; the task reads the answer in it. None: there is none.
        examples: what was answered.
        task: how to read an answer, and which metrics judge it.
        metrics: names, or names with parameters; the task's own by default.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Raises:
        InputError: an unknown metric.
    """
    chosen = ready_metrics(metrics or task.metrics, task.language)
    unknown = (float("nan"),) * len(examples)
    answers = {
        name: Answers(tuple(None if text is None else task.parse(text) for text in texts), unknown, 0.0)
        for name, texts in predictions.items()
    }
    return evaluation_record(answers, examples, task, chosen, model=None, draws=draws, seed=seed)


def ready_metrics(chosen: Sequence[str | Mapping[str, object]], language: str) -> dict[str, Metric]:
    """The metrics, each tried on one pair: an encoder or a segmenter that cannot be had is found before anything is generated."""
    made = make_metrics(chosen, language)
    for metric in made.values():
        metric.table(["a"], [["a"]])
    return made


def evaluation_record(
    answers: Mapping[str, Answers],
    examples: Sequence[Example],
    task: Task,
    chosen: Mapping[str, Metric],
    *,
    model: str | None,
    draws: int,
    seed: int,
    every_pair: bool = False,
    warnings: Sequence[str] = (),
) -> EvaluationRecord:
    """Scores, comparisons with the first system (or of every pair), and what the answers look like."""
    references = [reference for example in examples for reference in example.references]
    said = [text for given in answers.values() for text in given.texts if text is not None]
    # A model may say anything: of its answers only most of the letters speak against the language.
    about_answers = script_warning(said, task.language, chosen, "the answers", most=0.5)
    unread = (script_warning(references, task.language, chosen, "the references"), about_answers)
    scores = {name: score(given, examples, chosen, draws=draws, seed=seed) for name, given in answers.items()}
    systems, differences = list(scores), []
    for place, other in enumerate(systems):
        against = systems[:place] if every_pair else systems[: min(place, 1)]
        differences += compare(other, against, scores, chosen, groups=example_groups(examples), draws=draws, seed=seed)
    return EvaluationRecord(
        model=model,
        warnings=[*warnings, *filter(None, unread)],
        task=type(task).__name__,
        examples=len(examples),
        data=fingerprint(examples),
        cut_documents=sum(example.cut_characters > 0 for example in examples),
        metrics={name: {key: estimate(one) for key, one in found.items()} for name, found in scores.items()},
        comparisons=corrected(differences),
        answers={name: answers_record(given, examples, task.language) for name, given in answers.items()},
        unscored={name: sum(text is None for text in given.texts) for name, given in answers.items()},
        signatures={name: metric.signature_for([one.references for one in examples]) for name, metric in chosen.items()},
        predictions={name: list(given.texts) for name, given in answers.items()},
    )
