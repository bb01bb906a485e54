from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from rouge_score.rouge_scorer import RougeScorer

from pomona.metrics import Metric, Rouge1, Rouge2, RougeL
from pomona.metrics.text import words

KINDS = [(Rouge1, "rouge1"), (Rouge2, "rouge2"), (RougeL, "rougeL")]


def f1(shared: int, predicted: int, expected: int) -> float:
    return 2 * shared / (predicted + expected) if shared else 0.0


def plain_rouge(kind: str, predicted: Sequence[str], expected: Sequence[str]) -> float:
    if kind == "rougeL":
        table = [[0] * (len(expected) + 1) for _ in range(len(predicted) + 1)]
        for i, mine in enumerate(predicted):
            for j, theirs in enumerate(expected):
                table[i + 1][j + 1] = table[i][j] + 1 if mine == theirs else max(table[i][j + 1], table[i + 1][j])
        return f1(table[-1][-1], len(predicted), len(expected))
    order = int(kind[-1])
    mine, theirs = (
        Counter(tuple(tokens[n : n + order]) for n in range(len(tokens) - order + 1)) for tokens in (predicted, expected)
    )
    return f1((mine & theirs).total(), mine.total(), theirs.total())


@pytest.mark.parametrize(("metric", "kind"), KINDS)
def test_english_equals_rouge_score_s_default(metric: type[Metric], kind: str) -> None:
    generator = random.Random(0)
    vocabulary = ["The", "cat,", "sat", "on", "3.5", "mats;", "dog's", "naïve", "don't", "U.S.", "hat"]
    oracle = RougeScorer([kind])
    for _ in range(200):
        prediction, *references = (" ".join(generator.choices(vocabulary, k=generator.randrange(9))) for _ in range(3))
        expected = max(oracle.score(reference, prediction)[kind].fmeasure for reference in references)
        assert metric().statistics(prediction, references)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("metric", "kind"), KINDS)
@pytest.mark.parametrize(("language", "alphabet"), [("ar", ["كتاب", "قلم،", "بيت", "في"]), ("zh", ["山", "水", "在", "，", "ok "])])
def test_other_languages_equal_a_plain_count_over_their_words(
    metric: type[Metric], kind: str, language: str, alphabet: list[str]
) -> None:
    generator = random.Random(1)
    for _ in range(100):
        prediction, reference = (" ".join(generator.choices(alphabet, k=generator.randrange(8))) for _ in range(2))
        expected = plain_rouge(kind, words(prediction, language), words(reference, language))
        assert metric(language=language).statistics(prediction, [reference])[0] == pytest.approx(expected, abs=1e-12)  # pyright: ignore[reportCallIssue]


def test_by_hand() -> None:
    prediction, references = "the cat sat", ["the cat lay there", "a dog"]
    assert Rouge1().statistics(prediction, references)[0] == pytest.approx(4 / 7)
    assert Rouge2().statistics(prediction, references)[0] == pytest.approx(2 / 5)
    assert RougeL().statistics("sat the cat", references)[0] == pytest.approx(4 / 7)
    assert RougeL().statistics("cat the", ["the cat"])[0] == pytest.approx(1 / 2)
