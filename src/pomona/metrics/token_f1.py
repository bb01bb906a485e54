"""Token F1, by the rules of SQuAD and MLQA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pomona.metrics.base import Metric, metrics
from pomona.metrics.text import answer_tokens, primary_language


@metrics.register("token_f1")
@dataclass(frozen=True)
class TokenF1(Metric):
    """Token F1: `2 * shared / (predicted + expected)` tokens against the best reference, averaged.

    Lewis et al., "MLQA: Evaluating Cross-lingual Extractive Question Answering" (2020); tokens in `text.answer_tokens`.

    Args:
        language: language tag; says which articles are dropped and whether characters or words are compared.
    """

    language: str = "en"

    def __post_init__(self) -> None:
        primary_language(self.language)

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """The F1 of the best reference, [1], in [0, 1]."""
        predicted = answer_tokens(prediction, self.language)
        return np.array([max(_f1(predicted, answer_tokens(reference, self.language)) for reference in references)], np.float64)

    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """`100 * totals / counts`."""
        return 100.0 * totals[:, 0] / counts


def _f1(predicted: Sequence[str], expected: Sequence[str]) -> float:
    shared = (Counter(predicted) & Counter(expected)).total()
    return 2.0 * shared / (len(predicted) + len(expected)) if shared else 0.0
