"""Exact match, by the rules of SQuAD and MLQA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pomona.metrics.base import Metric, metrics
from pomona.metrics.text import answer_tokens, primary_language


@metrics.register("exact_match")
@dataclass(frozen=True)
class ExactMatch(Metric):
    """Exact match: the share of predictions that equal one of their references after normalisation.

    Lewis et al., "MLQA: Evaluating Cross-lingual Extractive Question Answering" (2020); normalisation in `text.answer_tokens`.

    Args:
        language: language tag; says which articles are dropped and whether characters or words are compared.
    """

    language: str = "en"

    def __post_init__(self) -> None:
        primary_language(self.language)

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """1 for a match, else 0, [1]; an empty prediction matches nothing."""
        tokens = answer_tokens(prediction, self.language)
        matches = bool(tokens) and any(tokens == answer_tokens(reference, self.language) for reference in references)
        return np.array([matches], np.float64)

    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """`100 * totals / counts`."""
        return 100.0 * totals[:, 0] / counts
