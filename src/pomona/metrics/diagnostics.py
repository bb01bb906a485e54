"""The form of a set of answers, apart from their correctness: empty answers, lengths, repetition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pomona.metrics.text import words

_ORDER = 4


@dataclass(frozen=True)
class AnswerStatistics:
    """Statistics of a set of answers; None if no answer allows an estimate.

    Args:
        empty_share: share of the answers that are blank, in [0, 1].
        mean_words: words of an answer, on average; the words are those of `text.words`.
        length_ratio: words of all answers divided by words of their references (for each example the one closest in length).
        repetition: share of an answer's 4-grams that occurred earlier in it, averaged over the answers of four words or more.
        unscored: number of missing answers; the other statistics exclude them.
    """

    empty_share: float | None
    mean_words: float | None
    length_ratio: float | None
    repetition: float | None
    unscored: int


def describe_answers(
    predictions: Sequence[str | None], references: Sequence[Sequence[str]], language: str = "en"
) -> AnswerStatistics:
    """Describe a set of answers.

    Repetition is 1 - distinct-4 of each answer (Li et al., "A Diversity-Promoting Objective Function for Neural Conversation
    Models", 2016, for n = 1 and 2 and over all answers).

    Args:
        predictions: [N]; None for a missing answer.
        references: [N], one or more of each example; of equally close ones the shorter counts.
        language: language tag; determines the words.

    Raises:
        ValueError: predictions and references differ in number.
        InputError: not a language tag.
    """
    lengths, expected, repetitions, empty = [], [], [], 0
    for prediction, theirs in zip(predictions, references, strict=True):
        if prediction is None:
            continue
        tokens = words(prediction, language)
        empty += not prediction.strip()
        lengths.append(len(tokens))
        expected.append(min((len(words(one, language)) for one in theirs), key=lambda other: (abs(len(tokens) - other), other)))
        if len(tokens) >= _ORDER:
            repetitions.append(_repetition(tokens))
    return AnswerStatistics(
        empty_share=_share(empty, len(lengths)),
        mean_words=_share(sum(lengths), len(lengths)),
        length_ratio=_share(sum(lengths), sum(expected)),
        repetition=_share(sum(repetitions), len(repetitions)),
        unscored=len(predictions) - len(lengths),
    )


def _repetition(tokens: tuple[str, ...]) -> float:
    runs = list(zip(*(tokens[start:] for start in range(_ORDER)), strict=False))
    return 1.0 - len(set(runs)) / len(runs)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
