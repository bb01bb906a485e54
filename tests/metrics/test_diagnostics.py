from __future__ import annotations

import pytest

from pomona.errors import InputError
from pomona.metrics import AnswerStatistics, describe_answers


def test_by_hand() -> None:
    predictions = ["a b c d a b c d", "x y", " ", None, "p q r s t"]
    references = [["a b c", "a b c d e f g"], ["x"], ["m n", "o p q"], ["not counted"], ["p", "p q r s t u v w x"]]
    # Words 8, 2, 0, 5. Closest references 7, 1, 2, and of 1 and 9 (both 4 away from 5) the shorter.
    # Runs of four: "a b c d" comes twice among 5; none is repeated among the 2 of the last.
    found = describe_answers(predictions, references, "en")
    assert (found.empty_share, found.mean_words, found.length_ratio, found.unscored) == (1 / 4, 15 / 4, 15 / 11, 1)
    assert found.repetition == pytest.approx(1 / 10)


def test_words_are_the_language_s() -> None:
    found = describe_answers(["山水山水山水"], [["山水"]], "zh")
    assert (found.mean_words, found.length_ratio, found.repetition) == (6.0, 3.0, pytest.approx(1 / 3))
    # English rules, which are rouge-score's, know the letters a to z alone.
    assert [describe_answers(["eine Straße"], [["ok"]], language).mean_words for language in ("en", "de")] == [3.0, 2.0]


def test_one_word_for_ever_is_all_repetition() -> None:
    assert describe_answers(["no " * 103], [["yes"]]).repetition == pytest.approx(99 / 100)


def test_what_nothing_says_anything_about_is_none() -> None:
    assert describe_answers([None, None], [["a"], ["b"]]) == AnswerStatistics(None, None, None, None, 2)
    assert describe_answers([], []) == AnswerStatistics(None, None, None, None, 0)
    assert describe_answers(["", "a b c"], [[""], ["", " "]]) == AnswerStatistics(1 / 2, 3 / 2, None, None, 0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        describe_answers(["a"], [])
    with pytest.raises(InputError, match="not a language tag"):
        describe_answers(["a"], [["a"]], "English")
