"""Token F1, by the rules of SQuAD and MLQA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pomona.metrics.answers import all_tokens, answer_signature, check_answer_rules
from pomona.metrics.base import Metric, metrics


@metrics.register("token_f1")
@dataclass(frozen=True)
class TokenF1(Metric):
    """Token F1: `2 * shared / (predicted + expected)` tokens against the best reference, averaged.

    Equal to lm-evaluation-harness's `mlqa` tasks, except that a text that normalisation removes completely ("the", "?") has
    an F1 of 1 with itself, not 0.

    Lewis et al., "MLQA: Evaluating Cross-lingual Extractive Question Answering" (2020); tokens in `answers.answer_tokens`.

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
        return answer_signature("token_f1", self.language, self.arabic_article)

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """The F1 of the best reference, [1], in [0, 1]."""
        predicted, expected = all_tokens(prediction, references, self.language, self.arabic_article)
        return np.array([max(_f1(predicted, tokens) for tokens in expected)], np.float64)

    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """`100 * totals / counts`."""
        return 100.0 * totals[:, 0] / counts


def _f1(predicted: Sequence[str], expected: Sequence[str]) -> float:
    shared = (Counter(predicted) & Counter(expected)).total()
    return 2.0 * shared / (len(predicted) + len(expected)) if shared else 0.0
