"""Answers of a model with an adapter, their losses, and their scores with intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from pomona.adapters.factors import Adapter
from pomona.backbone.attach import attached
from pomona.backbone.batches import encode
from pomona.backbone.decoding import Decoding
from pomona.backbone.generate import Generated, generate
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses
from pomona.backbone.prompts import Prompt, prompt_tokens
from pomona.components import typed
from pomona.data import Example
from pomona.data.tasks import Task
from pomona.errors import InputError
from pomona.metrics import Metric, interval, metrics
from pomona.seeding import stream
from pomona.tuning.progress import Progress

LOSS = "loss"
"""Name of the pseudo metric: mean loss of the references' first, nats per token. The only one where lower is better."""

LOSS_BATCH_SIZE = 8
"""Examples a batch when losses are measured. Nothing is decoded, so there is nothing to gain from many; on a CPU few are faster."""


@dataclass(frozen=True)
class Answers:
    """What a system said on a set of examples.

    Args:
        texts: the parsed answer of each example, in order; None where there is none to be scored.
        losses: mean loss of each example's target, nats per token.
        seconds: wall clock of generating and measuring.
        cut_prompts: how many prompts were too long to be given whole; None: not known.
        unended: how many answers were as long as they may be without coming to an end; None: not known.
    """

    texts: tuple[str | None, ...]
    losses: tuple[float, ...]
    seconds: float
    cut_prompts: int | None = None
    unended: int | None = None


@dataclass(frozen=True)
class Score:
    """A metric's value over the scored examples with its bootstrap interval.

    Args:
        value, low, high: in [0, 100], or nats for the loss.
        statistics: of each example, [N, S]; zeros where it was not scored.
        scored: which examples count, [N].
    """

    value: float
    low: float
    high: float
    statistics: Float64[np.ndarray, "N S"]
    scored: Bool[np.ndarray, " N"]

    @property
    def n(self) -> int:
        """How many examples were scored."""
        return int(self.scored.sum())


def answer(
    backbone: Backbone,
    adapter: Adapter | None,
    examples: Sequence[Example],
    task: Task,
    *,
    batch_size: int,
    max_tokens: int,
    progress: Progress,
    label: str,
    decoding: Decoding | None = None,
) -> Answers:
    """Let a system answer: the base model, or the base model with one adapter folded into its weights.

    Args:
        backbone: the model, with nothing attached.
        adapter: None for zero shot.
        examples: what to answer.
        task: how to stop and how to read an answer.
        batch_size: prompts a batch; decoding gains from many.
        max_tokens: longest prompt and answer together, in tokens.
        progress: told of each batch.
        label: what the progress display calls the system.
        decoding: greedy by default.

    Raises:
        InputError: `max_tokens` leaves no room for a prompt, before an answer or before a target.
    """
    if adapter is not None:
        with attached(backbone, [adapter]) as attachment, attachment.folded():
            return answer(
                backbone,
                None,
                examples,
                task,
                batch_size=batch_size,
                max_tokens=max_tokens,
                progress=progress,
                label=label,
                decoding=decoding,
            )
    started = time.perf_counter()
    prompts = answering_prompts(backbone, examples, task, max_tokens)
    encoded, _ = encode(examples, backbone.tokenizer, max_tokens, backbone.embedding_rows)
    progress.begin(f"evaluating {label}", len(examples))
    generated = decode(backbone, prompts, task, batch_size=batch_size, decoding=decoding, on_batch=progress.advance)
    losses = example_losses(backbone, encoded, LOSS_BATCH_SIZE)
    progress.end(f"loss {sum(losses) / len(losses):.3f}")
    return Answers(
        tuple(parsed(generated, task)),
        tuple(losses),
        time.perf_counter() - started,
        cut_prompts=sum(prompt.cut > 0 for prompt in prompts),
        unended=sum(one is not None and not one.ended for one in generated),
    )


def decode(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    task: Task,
    *,
    batch_size: int,
    decoding: Decoding | None = None,
    on_batch: Callable[[int], None] = lambda finished: None,
) -> list[Generated | None]:
    """What the model writes after each prompt, as long and with the stops that the task wants; None where memory does not do."""
    return generate(
        backbone,
        [prompt.tokens for prompt in prompts],
        max_new_tokens=task.max_new_tokens,
        batch_size=batch_size,
        stop_at_line_end=task.stops_at_line_end,
        stop=task.stop,
        decoding=decoding,
        on_batch=on_batch,
    )


def parsed(generated: Sequence[Generated | None], task: Task) -> list[str | None]:
    """The answers as the task reads them."""
    return [one and task.parse(one.text) for one in generated]


def answering_prompts(backbone: Backbone, examples: Sequence[Example], task: Task, max_tokens: int) -> list[Prompt]:
    """The examples' prompts, short enough to leave room for the longest answer.

    Raises:
        InputError: there is no room for a prompt, or a prompt cannot be made.
    """
    check_room(task, max_tokens, backbone)
    return [prompt_tokens(backbone.tokenizer, example, max_tokens - task.max_new_tokens) for example in examples]


def check_room(task: Task, max_tokens: int, backbone: Backbone | None = None) -> None:
    """Refuse a limit that leaves no room for a prompt before the longest answer, or that is beyond the model's context.

    Args:
        task: says how long an answer may get.
        max_tokens: longest prompt and answer together.
        backbone: the model, where it is known.

    Raises:
        InputError: it does either.
    """
    context = backbone.context_tokens if backbone else None
    if context is not None and max_tokens > context:
        raise InputError(
            f"the model was made for texts of up to {context} tokens", field="max_tokens", value=max_tokens, mend="Lower max_tokens"
        )
    if max_tokens <= task.max_new_tokens:
        raise InputError(
            f"an answer of {task.max_new_tokens} tokens leaves no room for a prompt",
            field="max_tokens",
            value=max_tokens,
            mend="Raise max_tokens, or lower the task's max_new_tokens",
        )


def make_metrics(chosen: Sequence[str | Mapping[str, object]], language: str) -> dict[str, Metric]:
    """Name -> metric, each with the language's own tokenisation.

    Args:
        chosen: names, or `{"name": ..., parameter: value}`.
        language: language tag of the answers.

    Raises:
        InputError: no such metric or parameter, a value that does not fit, or one metric twice.
        MissingPackageError: a metric needs an optional package that is not installed.
    """
    made: dict[str, Metric] = {}
    for one in chosen:
        parameters = {"name": one} if isinstance(one, str) else dict(one) if isinstance(one, Mapping) else {}
        name = parameters.pop("name", None)
        if not isinstance(name, str):
            raise InputError("a metric needs a name", field="metrics", value=one, mend=f"Known: {', '.join(metrics)}")
        if name in made:
            raise InputError("the metric is there twice", field="metrics", value=name)
        made[name] = typed(metrics, name, {"language": language} | parameters)
    return made


def score(
    answers: Answers, examples: Sequence[Example], chosen: Mapping[str, Metric], *, draws: int, seed: int
) -> dict[str, Score]:
    """Each metric's value and 95 % interval over the scored examples, clustered where examples share a document; `LOSS` too.

    A metric for which no example can be scored is left out.

    Args:
        answers: one for each example.
        examples: with their references.
        chosen: name -> metric.
        draws: bootstrap draws.
        seed: every metric draws the same resamples from it.
    """
    groups = example_groups(examples)
    answered = np.array([text is not None for text in answers.texts], dtype=bool)
    losses = np.array(answers.losses, dtype=np.float64)
    scores = {}
    for name, metric in (*chosen.items(), (LOSS, MeanLoss())):
        scored = np.isfinite(losses) if isinstance(metric, MeanLoss) else answered
        if not scored.any():
            continue
        if isinstance(metric, MeanLoss):
            rows = losses[scored, None]
        else:
            pairs = [(text, one.references) for text, one in zip(answers.texts, examples, strict=True) if text is not None]
            rows = metric.table([text for text, _ in pairs], [references for _, references in pairs])
        kept = [group for group, counts in zip(groups, scored, strict=True) if counts] if groups else None
        value, low, high = interval(rows, metric, draws=draws, generator=stream(seed, "bootstrap"), groups=kept)
        statistics = np.zeros((len(examples), rows.shape[1]))
        statistics[scored] = rows
        scores[name] = Score(value, low, high, statistics, scored)
    return scores


def example_groups(examples: Sequence[Example]) -> list[str] | None:
    """A document's name for each example where some share one, else None: every example is its own cluster."""
    groups = [example.group or example.id for example in examples]
    return groups if len(set(groups)) < len(groups) else None


class MeanLoss(Metric):
    """The mean of per-example losses, in the shape of a metric so that it shares the bootstrap."""

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """Refused: a loss does not come from a text."""
        raise TypeError("a loss is measured by the model, not from a prediction")

    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """Sum over count."""
        return totals[:, 0] / counts
