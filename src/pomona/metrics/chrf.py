"""chrF2 of a corpus.

Popović, "chrF: character n-gram F-score for automatic MT evaluation" (2015).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pomona.metrics.base import Metric, metrics
from pomona.metrics.text import primary_language

_ORDERS = 6
_BETA_SQUARED = 4.0


@metrics.register("chrf")
@dataclass(frozen=True)
class Chrf(Metric):
    """chrF2: F-score (recall counts twice) of character n-grams, n = 1 to 6, equal to `sacrebleu.corpus_chrf`.

    `score = 100 * 5 P R / (4 P + R)`, with precision P and recall R averaged over the orders that both sides have. Case counts,
    whitespace does not. The counts are made here, as sacrebleu does not show those of an example.

    Args:
        language: language tag; characters are the same in every language, so it changes nothing.
    """

    language: str = "en"

    def __post_init__(self) -> None:
        primary_language(self.language)

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """n-grams of the prediction, of its best reference, and shared, for n = 1 to 6, [18]; the first of equal references."""
        predicted = _ngrams(prediction)
        best = np.zeros(0)
        best_score = -1.0
        for reference in references:
            candidate = np.array(
                [_counts(mine, theirs) for mine, theirs in zip(predicted, _ngrams(reference), strict=True)], np.float64
            ).ravel()
            score = float(_f_scores(candidate[None])[0]) if len(references) > 1 else 0.0
            if score > best_score:
                best, best_score = candidate, score
        return best

    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """chrF2 from summed counts."""
        return _f_scores(totals)


def _f_scores(totals_DS: Float64[np.ndarray, "D S"]) -> Float64[np.ndarray, " D"]:
    predicted, reference, shared = np.moveaxis(totals_DS.reshape(-1, _ORDERS, 3), 2, 0)
    present = (predicted > 0) & (reference > 0)
    orders = np.maximum(present.sum(axis=1), 1)
    precision = np.where(present, shared / np.where(present, predicted, 1.0), 0.0).sum(axis=1) / orders
    recall = np.where(present, shared / np.where(present, reference, 1.0), 0.0).sum(axis=1) / orders
    weighted = _BETA_SQUARED * precision + recall
    return np.where(weighted > 0, 100.0 * (1.0 + _BETA_SQUARED) * precision * recall / np.where(weighted > 0, weighted, 1.0), 0.0)


def _ngrams(text: str) -> list[Counter[str]]:
    characters = "".join(text.split())
    return [
        Counter([characters[start : start + order] for start in range(len(characters) - order + 1)])
        for order in range(1, _ORDERS + 1)
    ]


def _counts(predicted: Counter[str], reference: Counter[str]) -> tuple[int, int, int]:
    """(n-grams of the prediction, of the reference, shared). An order that the reference is too short for counts for neither."""
    if not reference:
        return 0, 0, 0
    shared = sum(min(count, reference[ngram]) for ngram, count in predicted.items() if ngram in reference)
    return predicted.total(), reference.total(), shared
