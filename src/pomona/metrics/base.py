"""What a metric is: sufficient statistics of each example, and a score in [0, 100] from their sum.

That one shape serves metrics that average over examples (ROUGE, exact match) and metrics of a corpus (BLEU, chrF), and
makes a bootstrap draw a matrix product instead of a second scoring.
"""

from __future__ import annotations

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
            references: one or more right answers.
        """

    @abstractmethod
    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """Scores in [0, 100] of D corpora at once.

        Args:
            totals: statistics summed over each corpus's examples, [D, S].
            counts: how many examples each corpus has, [D], >= 1.
        """


metrics: Registry[Metric] = Registry("metric")
