"""Exact match and token F1 against a plain writing of SQuAD's rules."""

from __future__ import annotations

import random
import re
import string

import pytest

from pomona.metrics import ExactMatch, TokenF1


def squad_normalised(text: str) -> str:
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(prediction: str, reference: str) -> float:
    mine, theirs = squad_normalised(prediction).split(), squad_normalised(reference).split()
    left, shared = list(theirs), 0
    for token in mine:
        if token in left:
            left.remove(token)
            shared += 1
    if not shared:
        return 0.0
    precision, recall = shared / len(mine), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


def test_english_equals_squad_s_rules() -> None:
    generator = random.Random(0)
    vocabulary = ["The", "the", "cat", "cat,", "Dog's", "an", "U.S.", "3.5", "mat"]
    for _ in range(300):
        texts = [" ".join(generator.choices(vocabulary, k=generator.randrange(1, 6))) for _ in range(3)]
        if not all(map(squad_normalised, texts)):
            continue
        prediction, *references = texts
        expected = max(squad_f1(prediction, reference) for reference in references)
        assert TokenF1().statistics(prediction, references)[0] == pytest.approx(expected, abs=1e-12)
        equal = any(squad_normalised(prediction) == squad_normalised(reference) for reference in references)
        assert ExactMatch().statistics(prediction, references)[0] == float(equal)


@pytest.mark.parametrize(
    ("language", "prediction", "reference", "exact", "f1"),
    [
        ("en", "the Cat.", "cat", 1.0, 1.0),
        ("en", "black cat", "cat", 0.0, 2 / 3),
        ("en", "cat cat", "cat", 0.0, 2 / 3),
        ("ar", "الكتاب", "كتاب", 1.0, 1.0),
        ("zh", "北京市", "北京", 0.0, 4 / 5),
        ("zh", "《北京》。", "北 京", 1.0, 1.0),
        ("ja", "東京タワー", "東京", 0.0, 4 / 7),
        ("ko", "서울 시", "서울", 0.0, 2 / 3),
        ("en", "A", "A", 1.0, 1.0),
        ("en", "?", "A", 0.0, 0.0),
        ("en", "", "the", 0.0, 0.0),
        ("en", " ", "", 0.0, 0.0),
    ],
)
def test_by_hand(language: str, prediction: str, reference: str, exact: float, f1: float) -> None:
    assert ExactMatch(language).statistics(prediction, ["other", reference])[0] == exact
    assert TokenF1(language).statistics(prediction, ["other", reference])[0] == pytest.approx(f1)
