"""chrF2 of a corpus.

Popović, "chrF: character n-gram F-score for automatic MT evaluation" (2015).
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pomona.metrics.base import Metric, metrics, references_each
from pomona.metrics.text import primary_language

_ORDERS = 6
_BETA_SQUARED = 4.0


@metrics.register("chrf")
@dataclass(frozen=True)
class Chrf(Metric):
    """chrF2: F-score (recall counts twice) of character n-grams, n = 1 to 6, equal to `sacrebleu.corpus_chrf`.

    `score = 100 * 5 P R / (4 P + R)`, with precision P and recall R averaged over the orders that both sides have.
    Case-sensitive, without whitespace. This module counts the n-grams, because sacrebleu does not give the counts of an example.

    Args:
        language: language tag; characters are the same in every language, so it changes nothing.
    """

    language: str = "en"

    def __post_init__(self) -> None:
        primary_language(self.language)

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """n-grams of the prediction, of its best reference, and shared, for n = 1 to 6, [18]; the first of equal references."""
        predicted = "".join(prediction.split())
        expected = ["".join(reference.split()) for reference in references]
        candidates: list[list[int]] = [[] for _ in references]
        for order, (mine, *each) in enumerate(zip(*map(_ngrams, (predicted, *expected)), strict=True), start=1):
            counts = Counter(mine)
            for candidate, reference, theirs in zip(candidates, expected, each, strict=True):
                total = max(len(reference) - order + 1, 0)
                # An order for which the reference is too short counts for neither side.
                candidate += (max(len(predicted) - order + 1, 0) if total else 0, total, _shared(counts, theirs))
        return np.array(max(candidates, key=_f_score) if len(candidates) != 1 else candidates[0], np.float64)

    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """chrF2 from summed counts."""
        predicted, reference, shared = np.moveaxis(totals.reshape(-1, _ORDERS, 3), 2, 0)
        present = (predicted > 0) & (reference > 0)
        orders = np.maximum(present.sum(axis=1), 1)
        precision = np.where(present, shared / np.where(present, predicted, 1.0), 0.0).sum(axis=1) / orders
        recall = np.where(present, shared / np.where(present, reference, 1.0), 0.0).sum(axis=1) / orders
        weighted = _BETA_SQUARED * precision + recall
        score = 100.0 * (1.0 + _BETA_SQUARED) * precision * recall
        return np.where(weighted > 0, score / np.where(weighted > 0, weighted, 1.0), 0.0)

    @property
    def signature(self) -> str:
        """The signature of sacrebleu, without a number of references."""
        return _signature(-1)

    def signature_for(self, references: Sequence[Sequence[str]]) -> str:
        """The signature of sacrebleu; `nrefs:var` if examples have different numbers of references."""
        return _signature(references_each(references))


def _ngrams(text: str) -> Iterator[list[str]]:
    """The n-grams of each order in turn; each order is made from the previous one."""
    ngrams = list(text)
    for order in range(1, _ORDERS + 1):
        yield ngrams
        ngrams = list(map(operator.add, ngrams, text[order:]))


def _shared(counts: Counter[str], others: list[str]) -> int:
    shared = Counter(filter(counts.__contains__, others))
    return sum(map(min, map(counts.__getitem__, shared), shared.values()))


def _f_score(counts: Sequence[int]) -> float:
    """The F-score, summed in sacrebleu's order, so that ties between references are resolved as in sacrebleu."""
    precision = recall = 0.0
    orders = 0
    for predicted, reference, shared in zip(counts[::3], counts[1::3], counts[2::3], strict=True):
        if predicted > 0 and reference > 0:
            precision += shared / predicted
            recall += shared / reference
            orders += 1
    if not precision + recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return (1.0 + _BETA_SQUARED) * precision * recall / (_BETA_SQUARED * precision + recall)


def _signature(number: int) -> str:
    from sacrebleu.metrics.chrf import CHRF

    scorer = CHRF()
    scorer.num_refs = number
    return str(scorer.get_signature())
