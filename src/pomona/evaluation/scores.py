"""Scores of answers, each metric with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from pomona.components import typed
from pomona.data import Example
from pomona.errors import InputError
from pomona.evaluation.answers import Answers
from pomona.metrics import Metric, interval, metrics
from pomona.seeding import stream

LOSS = "loss"
"""Name of the pseudo metric: mean loss of the references' first, nats per token. The only one where lower is better."""


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
            raise InputError("a metric needs a name", field="metrics", value=one, fix=f"Known: {', '.join(metrics)}")
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
