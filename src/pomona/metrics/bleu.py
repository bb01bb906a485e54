"""BLEU-4 of a corpus, by sacrebleu.

Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation" (2002); Post, "A Call for Clarity in Reporting
BLEU Scores" (2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from pomona.metrics.base import Metric, metrics
from pomona.metrics.text import bleu_tokenizer, primary_language

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

_ORDERS = 4


@metrics.register("bleu")
@dataclass(frozen=True)
class Bleu(Metric):
    """BLEU-4 of the corpus: `100 * brevity * (p1 p2 p3 p4) ** (1 / 4)`, equal to `sacrebleu.corpus_bleu`.

    Case counts; precisions without a match are smoothed exponentially, as sacrebleu does by default. A corpus whose predictions
    have no run of four tokens scores 0, by definition.

    Args:
        language: language tag; says which of sacrebleu's tokenizers cuts (see `text.bleu_tokenizer`).
    """

    language: str = "en"

    def __post_init__(self) -> None:
        primary_language(self.language)

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """Lengths of prediction and closest reference, matched n-grams and all n-grams for n = 1 to 4, [10]."""
        score = _scorer(bleu_tokenizer(self.language)).corpus_score([prediction], [[reference] for reference in references])
        return np.array([score.sys_len, score.ref_len, *score.counts, *score.totals], np.float64)

    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """BLEU from summed counts: `brevity = min(1, exp(1 - reference_length / length))`, `p_n = matched_n / all_n`.

        The k-th order without a match has `p_n = 1 / (2 ** k * all_n)`; no match at any order, or no n-grams at one, scores 0.
        """
        length, reference_length = totals[:, 0], totals[:, 1]
        matched, everything = totals[:, 2 : 2 + _ORDERS], totals[:, 2 + _ORDERS :]
        defined = (matched.sum(axis=1) > 0) & (everything > 0).all(axis=1)
        smoothed = 0.5 ** np.cumsum(matched == 0, axis=1)
        precisions = np.where(matched > 0, matched, smoothed) / np.where(everything > 0, everything, 1.0)
        brevity = np.exp(np.minimum(0.0, 1.0 - reference_length / np.where(length > 0, length, 1.0)))
        return np.where(defined, 100.0 * brevity * np.exp(np.log(precisions).mean(axis=1)), 0.0)


@cache
def _scorer(tokenizer: str) -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, force=True)
