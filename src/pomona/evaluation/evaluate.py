"""Answers of a model with an adapter, their losses, and their scores with intervals."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pomona.adapters.factors import Adapter
from pomona.backbone.attach import attached
from pomona.backbone.batches import encode
from pomona.backbone.generate import generate
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses
from pomona.data import Example
from pomona.data.tasks import Task
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
        texts: the parsed answer of each example, in order.
        losses: mean loss of each example's target, nats per token.
        seconds: wall clock of generating and measuring.
    """

    texts: tuple[str, ...]
    losses: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Score:
    """A metric's value over all examples with its bootstrap interval, and the statistics that it came from, [N, S]."""

    value: float
    low: float
    high: float
    statistics: Float64[np.ndarray, "N S"]


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
) -> Answers:
    """Let a system answer: the base model, or the base model with one adapter folded into its weights.

    Args:
        backbone: the model, with nothing attached.
        adapter: None for zero shot.
        examples: what to answer.
        task: how to stop and how to read an answer.
        batch_size: prompts a batch; decoding gains from many.
        max_tokens: longest example when losses are measured.
        progress: told of each batch.
        label: what the progress display calls the system.
    """
    if adapter is not None:
        with attached(backbone, [adapter]) as attachment, attachment.folded():
            return answer(
                backbone, None, examples, task, batch_size=batch_size, max_tokens=max_tokens, progress=progress, label=label
            )
    started = time.perf_counter()
    progress.begin(f"evaluating {label}", len(examples))
    texts = generate(
        backbone,
        [example.prompt for example in examples],
        max_new_tokens=task.max_new_tokens,
        batch_size=batch_size,
        stop_at_line_end=task.stops_at_line_end,
        on_batch=progress.advance,
    )
    encoded, _ = encode(examples, backbone.tokenizer, max_tokens)
    losses = example_losses(backbone, encoded, LOSS_BATCH_SIZE)
    progress.end(f"loss {sum(losses) / len(losses):.3f}")
    return Answers(tuple(map(task.parse, texts)), tuple(losses), time.perf_counter() - started)


def make_metrics(names: Sequence[str], language: str) -> dict[str, Metric]:
    """The named metrics, each with the language's own tokenisation.

    Raises:
        InputError: no such metric.
    """
    return {name: metrics.create(name, {"language": language}) for name in names}


def score(
    answers: Answers, examples: Sequence[Example], chosen: Mapping[str, Metric], *, draws: int, seed: int
) -> dict[str, Score]:
    """Each metric's value and 95 % interval over the examples, clustered where examples share a document; `LOSS` too.

    Args:
        answers: one for each example.
        examples: with their references.
        chosen: name -> metric.
        draws: bootstrap draws.
        seed: every metric draws the same resamples from it.
    """
    groups = example_groups(examples)
    scores = {}
    for name, metric in (*chosen.items(), (LOSS, MeanLoss())):
        if isinstance(metric, MeanLoss):
            statistics = np.asarray(answers.losses, dtype=np.float64)[:, None]
        else:
            pairs = zip(answers.texts, examples, strict=True)
            statistics = np.stack([metric.statistics(text, example.references) for text, example in pairs])
        value, low, high = interval(statistics, metric, draws=draws, generator=stream(seed, "bootstrap"), groups=groups)
        scores[name] = Score(value, low, high, statistics)
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
