"""Exact match, by the rules of SQuAD and MLQA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pomona.metrics.answers import all_tokens, answer_signature, check_answer_rules
from pomona.metrics.base import Metric, metrics


@metrics.register("exact_match")
@dataclass(frozen=True)
class ExactMatch(Metric):
    """Exact match: the share of predictions that equal one of their references after normalisation.

    Equal to lm-evaluation-harness's `mlqa` tasks, except for texts that normalisation removes completely ("the", "?", ""):
    in lm-evaluation-harness they all match each other; here each matches only itself, and an empty text matches nothing.

    Lewis et al., "MLQA: Evaluating Cross-lingual Extractive Question Answering" (2020); normalisation in `answers.answer_tokens`.

    Args:
        language: language tag; determines which articles are dropped and whether characters or words are compared.
        arabic_article: `word` drops the Arabic article at the beginning of words, as in lm-evaluation-harness; `anywhere` also
            drops its letters within words, as in MLQA's published script.
    """

    language: str = "en"
    arabic_article: str = "word"

    def __post_init__(self) -> None:
        check_answer_rules(self.language, self.arabic_article)

    @property
    def signature(self) -> str:
        """The rules and their language."""
        return answer_signature("exact_match", self.language, self.arabic_article)

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """1 for a match, else 0, [1]; an empty prediction matches nothing."""
        predicted, expected = all_tokens(prediction, references, self.language, self.arabic_article)
        return np.array([bool(predicted) and predicted in expected], np.float64)

    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """`100 * totals / counts`."""
        return 100.0 * totals[:, 0] / counts
