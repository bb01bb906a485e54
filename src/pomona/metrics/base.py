"""What a metric is: sufficient statistics of each example, and a score in [0, 100] from their sum.

That one shape serves metrics that average over examples (ROUGE, exact match) and metrics of a corpus (BLEU, chrF), and
makes a bootstrap draw a matrix product instead of a second scoring.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from pomona.registry import Registry


class Metric(ABC):
    """A string metric. Subclasses are frozen dataclasses, one a file, registered in `metrics`. Higher is better."""

    @abstractmethod
    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """Sufficient statistics of one example, [S]; any prediction, the empty one too, has them.

        Args:
            prediction: the parsed answer.
            references: one or more right answers; a blank one is matched by nothing, a blank prediction neither.

        Raises:
            ValueError: no references.
        """

    @abstractmethod
    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """Scores in [0, 100] of D corpora at once.

        Args:
            totals: statistics summed over each corpus's examples, [D, S].
            counts: how many examples each corpus has, [D], >= 1.
        """

    def table(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64[np.ndarray, "N S"]:
        """Statistics of N >= 1 examples, [N, S]. A metric that is faster in batches has its own.

        Args:
            predictions: [N].
            references: [N], those of each example.
        """
        return np.stack([self.statistics(one, theirs) for one, theirs in zip(predictions, references, strict=True)])

    @property
    def signature(self) -> str:
        """What made the score, with which settings: `name|setting:value|...`, in the form of the library that it equals."""
        fields = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        return "|".join([type(self).__name__, *(f"{field.name}:{getattr(self, field.name)}" for field in fields)])

    def signature_for(self, references: Sequence[Sequence[str]]) -> str:
        """The signature of a score on these examples; some libraries record how many references an example had.

        Args:
            references: those of each example.
        """
        return self.signature


def references_each(references: Sequence[Sequence[str]]) -> int:
    """How many references an example has, or -1 where examples differ: what sacrebleu's signatures ask for."""
    numbers = {len(one) for one in references}
    return numbers.pop() if len(numbers) == 1 else -1


metrics: Registry[Metric] = Registry("metric")
