"""The interface of a metric: sufficient statistics of each example, and a score in [0, 100] from their sum.

This form fits metrics that average over examples (ROUGE, exact match) and metrics of a corpus (BLEU, chrF), and a bootstrap
draw is a matrix product instead of a second scoring.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from pomona.registry import Registry


class Metric(ABC):
    """A string metric. Subclasses are frozen dataclasses, one per file, registered in `metrics`. Higher is better."""

    @abstractmethod
    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """Sufficient statistics of one example, [S]; defined for any prediction, also an empty one.

        Args:
            prediction: the parsed answer.
            references: one or more correct answers; a blank reference or prediction matches nothing.

        Raises:
            ValueError: no references.
        """

    @abstractmethod
    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """Scores in [0, 100] of D corpora at once.

        Args:
            totals: statistics summed over each corpus's examples, [D, S].
            counts: the number of examples of each corpus, [D], >= 1.
        """

    def table(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64[np.ndarray, "N S"]:
        """Statistics of N >= 1 examples, [N, S]. A metric that is faster in batches overrides it.

        Args:
            predictions: [N].
            references: [N], the references of each example.
        """
        return np.stack([self.statistics(one, theirs) for one, theirs in zip(predictions, references, strict=True)])

    @property
    def signature(self) -> str:
        """The metric and its settings: `name|setting:value|...`, in the form of the library whose scores it equals."""
        fields = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        return "|".join([type(self).__name__, *(f"{field.name}:{getattr(self, field.name)}" for field in fields)])

    def signature_for(self, references: Sequence[Sequence[str]]) -> str:
        """The signature of a score on these examples; some libraries record the number of references per example.

        Args:
            references: the references of each example.
        """
        return self.signature


def references_each(references: Sequence[Sequence[str]]) -> int:
    """The number of references per example, or -1 if examples differ, for sacrebleu's signatures."""
    numbers = {len(one) for one in references}
    return numbers.pop() if len(numbers) == 1 else -1


metrics: Registry[Metric] = Registry("metric")
