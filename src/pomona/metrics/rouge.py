"""ROUGE-1, ROUGE-2 and ROUGE-L by rouge-score, with the language's own tokens.

Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004). F1 of each example against its best reference, averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float64

from pomona.metrics.base import Metric, metrics
from pomona.metrics.text import primary_language, words

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer


@dataclass(frozen=True)
class _Rouge(Metric):
    """What the three have in common: the score of an example is `max over references of F1`, the corpus's is the mean.

    Args:
        language: language tag; says how text is cut into words (see `text.words`). Without stemming.
    """

    kind: ClassVar[str]
    language: str = "en"

    def __post_init__(self) -> None:
        primary_language(self.language)

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """The F1 of the best reference, [1], in [0, 1]."""
        return np.array([_scorer(self.kind, self.language).score_multi(references, prediction)[self.kind].fmeasure], np.float64)

    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """`100 * totals / counts`."""
        return 100.0 * totals[:, 0] / counts


@metrics.register("rouge_1")
@dataclass(frozen=True)
class Rouge1(_Rouge):
    """ROUGE-1: F1 of the words that prediction and reference share."""

    kind: ClassVar[str] = "rouge1"


@metrics.register("rouge_2")
@dataclass(frozen=True)
class Rouge2(_Rouge):
    """ROUGE-2: F1 of the pairs of neighbouring words that prediction and reference share; 0 for texts of one word."""

    kind: ClassVar[str] = "rouge2"


@metrics.register("rouge_l")
@dataclass(frozen=True)
class RougeL(_Rouge):
    """ROUGE-L: F1 of the longest common subsequence of words of prediction and reference."""

    kind: ClassVar[str] = "rougeL"


@cache
def _scorer(kind: str, language: str) -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer  # slow: it brings nltk
    from rouge_score.tokenizers import Tokenizer

    class LanguageTokenizer(Tokenizer):
        def tokenize(self, text: str) -> tuple[str, ...]:
            return words(text, language)

    return RougeScorer([kind], tokenizer=LanguageTokenizer())
