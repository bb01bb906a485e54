"""ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, equal to rouge-score's, with tokens of the language.

Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004). F1 of each example against its best reference, averaged.
This module counts itself instead of calling rouge-score, whose table of a longest common subsequence takes a second for texts of
3,000 words and does not fit in memory for texts of a megabyte.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from pomona.metrics.base import Metric, metrics
from pomona.metrics.lcs import common_length, common_places, positions
from pomona.metrics.text import check_word_tokenizer, word_tokenizer_name, words_by, words_without_rest

LONGEST = 1 << 15
"""ROUGE-L and Lsum read this many tokens of a text, and no more."""

MOST_LINES = 200
"""ROUGE-Lsum reads this many lines of a text, and no more."""

_EQUALS_VERSION = "0.1.2"


@dataclass(frozen=True)
class _Rouge(Metric):
    """The base class: an example's score is `max over references of 2 P R / (P + R)`, the corpus's is the mean.

    Args:
        language: language tag; determines with `tokenizer` how text is split into words. Without stemming.
        tokenizer: `auto`, `words` or `characters` (see `text.words_by`).
    """

    kind: ClassVar[str]
    language: str = "en"
    tokenizer: str = "auto"

    def __post_init__(self) -> None:
        check_word_tokenizer(self.tokenizer, self.language)

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """The F1 of the best reference, [1], in [0, 1]."""
        return np.array([max(self._f1(prediction, reference) for reference in references)], np.float64)

    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """`100 * totals / counts`."""
        return 100.0 * totals[:, 0] / counts

    @property
    def signature(self) -> str:
        """The version of rouge-score with equal scores, its name of the metric, and the tokenizer."""
        cutter = word_tokenizer_name(self.tokenizer, self.language)
        return f"rouge-score|v:{_EQUALS_VERSION}|type:{self.kind}|tok:{cutter}|stem:no|refs:best"

    def _words(self, text: str) -> tuple[str, ...]:
        return words_by(text, self.language, self.tokenizer)

    @abstractmethod
    def _f1(self, prediction: str, reference: str) -> float: ...


@metrics.register("rouge_1")
@dataclass(frozen=True)
class Rouge1(_Rouge):
    """ROUGE-1: F1 of the words that prediction and reference share."""

    kind: ClassVar[str] = "rouge1"

    def _f1(self, prediction: str, reference: str) -> float:
        predicted, expected = self._words(prediction), self._words(reference)
        return _f1(_shared(predicted, expected), len(predicted), len(expected))


@metrics.register("rouge_2")
@dataclass(frozen=True)
class Rouge2(_Rouge):
    """ROUGE-2: F1 of the pairs of neighbouring words that prediction and reference share; 0 for texts of one word."""

    kind: ClassVar[str] = "rouge2"

    def _f1(self, prediction: str, reference: str) -> float:
        predicted, expected = self._words(prediction), self._words(reference)
        shared = _shared(pairwise(predicted), pairwise(expected))
        return _f1(shared, len(predicted) - 1, len(expected) - 1)


@metrics.register("rouge_l")
@dataclass(frozen=True)
class RougeL(_Rouge):
    """ROUGE-L: F1 of the longest common subsequence of words of prediction and reference; the first 32,768 words count."""

    kind: ClassVar[str] = "rougeL"

    def _f1(self, prediction: str, reference: str) -> float:
        predicted, expected = self._words(prediction)[:LONGEST], self._words(reference)[:LONGEST]
        return _f1(common_length(expected, predicted), len(predicted), len(expected))


@metrics.register("rouge_lsum")
@dataclass(frozen=True)
class RougeLsum(_Rouge):
    """ROUGE-Lsum: ROUGE-L of a text in lines, summed over the reference lines.

    `hits` are the words of the union, over the predicted lines, of the longest common subsequences with a line of the reference;
    no word counts more often than it occurs in both texts. `P = hits / predicted words`, `R = hits / expected words`. Lines end at
    line feeds, as in rouge-score. The first 200 lines and 32,768 words of a text count.
    """

    kind: ClassVar[str] = "rougeLsum"

    def _f1(self, prediction: str, reference: str) -> float:
        predicted, expected = self._lines(prediction), self._lines(reference)
        left = Counter(word for line in predicted for word in line)
        total = left.total()
        hits, others = 0, set(predicted)
        for line in expected:
            found = _union_places(line, others)
            for place, word in enumerate(line):
                if found >> place & 1 and left[word] > 0:
                    hits += 1
                    left[word] -= 1
        return _f1(hits, total, sum(map(len, expected)))

    def _lines(self, text: str) -> list[tuple[str, ...]]:
        lines: list[tuple[str, ...]] = []
        left = LONGEST
        for line in filter(None, text.split("\n")):
            if cut := words_without_rest(line, self.language, self.tokenizer)[:left]:
                lines.append(cut)
                left -= len(cut)
            if not left or len(lines) == MOST_LINES:
                break
        return lines or [self._words(text)[:LONGEST]]


def _union_places(line: tuple[str, ...], others: set[tuple[str, ...]]) -> int:
    places = positions(line)
    found = 0
    for other in others:
        found |= common_places(places, len(line), other)
    return found


def _shared(predicted: Iterable[Hashable], expected: Iterable[Hashable]) -> int:
    mine, theirs = Counter(predicted), Counter(expected)
    common = mine.keys() & theirs.keys()
    return sum(map(min, map(mine.__getitem__, common), map(theirs.__getitem__, common)))


def _f1(shared: int, predicted: int, expected: int) -> float:
    if not shared:
        return 0.0
    precision, recall = shared / predicted, shared / expected
    return 2 * precision * recall / (precision + recall)
