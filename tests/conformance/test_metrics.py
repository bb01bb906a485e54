"""What every registered metric must do."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from tests.tiny_encoder import save_tiny_encoder

from pomona.errors import InputError
from pomona.metrics import Metric, corpus_score, metrics

TEXTS = {
    "en": ["The quick brown fox jumps over the lazy dog.", "In 2012 there were 3.5 million of them."],
    "ar": ["نظّم أعضاء الكنيسة أنفسهم إلى فريق عمل.", "في أي عام كانت هناك محاولة لسحب العضوية؟"],
    "zh": ["在2012年，有人试图撤销会员资格。", "对弹丸破片速度衰减规律的探讨"],
    "ja": ["東京タワーは1958年に完成した。", "男性が自転車に乗っている。"],
    "ko": ["서울은 대한민국의 수도이자 최대 도시이다.", "그 영화는 2012년에 처음 나온 것이다."],
    "sw": ["Nairobi ni mji mkuu wa nchi ya Kenya.", "Mwaka wa 2012 kulikuwa na watu wengi sana."],
}
NEAR_100 = {"bert_score": 1e-3}
"""Metrics that compute in float32: how far from 100, or from the same score in another order, they may be."""

NOT_ZERO_FOR_UNRELATED = {"bert_score"}
"""No two words are unrelated to an encoder."""

Make = Callable[[str, str], Metric]


TRIED: dict[str, list[tuple[str, str]]] = {}
"""Test -> the metrics and languages that it is tried on, of the tests that take a language."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each law on each metric in two of the languages, others from law to law and from metric to metric."""
    if "language" in metafunc.fixturenames:
        law, languages = len(TRIED), list(TEXTS)
        pairs = [(name, languages[(place + law + half) % 6]) for place, name in enumerate(metrics) for half in (0, 3)]
        metafunc.parametrize(("name", "language"), pairs)
        TRIED[metafunc.function.__name__] = pairs
    elif "name" in metafunc.fixturenames:
        metafunc.parametrize("name", list(metrics))


def test_every_metric_and_every_law_meets_every_language() -> None:
    assert {pair for pairs in TRIED.values() for pair in pairs} == set(itertools.product(metrics, TEXTS))
    assert all({language for _, language in pairs} == set(TEXTS) for pairs in TRIED.values())


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """(name, language) -> the metric, with what it cannot do without."""
    needs: dict[str, dict[str, object]] = {}
    if "bert_score" in metrics:
        needs["bert_score"] = {"model": str(save_tiny_encoder(tmp_path_factory.mktemp("encoder")))}
    return lambda name, language: metrics.create(name, {"language": language} | needs.get(name, {}))


def score(metric: Metric, pairs: list[tuple[str, list[str]]]) -> float:
    return corpus_score(metric.table(*map(list, zip(*pairs, strict=True))), metric)  # pyright: ignore[reportArgumentType]


def test_equal_texts_score_100_alone_and_together(make: Make, name: str, language: str) -> None:
    metric = make(name, language)
    pairs = [(text, [text]) for text in TEXTS[language]]
    for some in (pairs, pairs[:1], pairs[1:]):
        assert score(metric, some) == pytest.approx(100.0, abs=NEAR_100.get(name, 1e-9))


@pytest.mark.parametrize("empty", ["", " \n\t"])
def test_an_empty_answer_scores_0_and_an_empty_reference_gives_0(make: Make, name: str, language: str, empty: str) -> None:
    metric = make(name, language)
    assert score(metric, [(empty, [text]) for text in TEXTS[language]]) == 0.0
    assert score(metric, [(text, [empty]) for text in TEXTS[language]]) == 0.0
    assert score(metric, [(empty, [empty, empty])]) == 0.0


def test_an_unrelated_answer_scores_near_0_and_a_half_right_one_between(make: Make, name: str, language: str) -> None:
    if name in NOT_ZERO_FOR_UNRELATED:
        pytest.skip("an encoder finds some likeness in any two texts")
    metric = make(name, language)
    text = TEXTS[language][0]
    assert score(metric, [("QQQQ", [text])]) == 0.0
    half = score(metric, [(text, [text]), ("QQQQ", [text])])
    assert 40.0 < half < 95.0


def test_the_best_reference_counts_wherever_it_stands(make: Make, name: str, language: str) -> None:
    metric = make(name, language)
    first, second = TEXTS[language]
    for references in ([first, second], [second, first], [first], [first, first]):
        assert score(metric, [(first, references)]) == pytest.approx(100.0, abs=NEAR_100.get(name, 1e-9))


def test_the_order_of_examples_changes_nothing(make: Make, name: str, language: str) -> None:
    metric = make(name, language)
    first, second = TEXTS[language]
    pairs = [
        (first, [first]),
        (first[: len(first) // 2], [first]),
        ("", [second]),
        (second, [first, second]),
        (second[3:], [second]),
    ]
    assert score(metric, pairs) == pytest.approx(score(metric, pairs[::-1]), abs=NEAR_100.get(name, 1e-9))


def test_statistics_are_finite_of_one_shape_and_the_same_each_time(make: Make, name: str, language: str) -> None:
    metric = make(name, language)
    rows = [metric.statistics(text, [reference]) for text in (*TEXTS[language], "", "x") for reference in TEXTS[language]]
    assert {(row.shape, row.dtype) for row in rows} == {(rows[0].shape, np.dtype(np.float64))}
    assert all(np.isfinite(row).all() and (row >= 0).all() for row in rows)
    assert rows[0].tolist() == metric.statistics(TEXTS[language][0], [TEXTS[language][0]]).tolist()


def test_a_table_is_the_examples_statistics(make: Make, name: str, language: str) -> None:
    metric = make(name, language)
    first, second = TEXTS[language]
    predictions, references = [first, "", "x", second[2:]], [[first], [second], [first, second], [second, first, ""]]
    rows = [metric.statistics(one, theirs) for one, theirs in zip(predictions, references, strict=True)]
    assert metric.table(predictions, references) == pytest.approx(np.stack(rows), abs=1e-5 if name in NEAR_100 else 0)
    with pytest.raises(ValueError, match="zip"):
        metric.table(predictions, references[1:])


def test_many_corpora_are_scored_as_one_by_one(make: Make, name: str, language: str) -> None:
    metric = make(name, language)
    rows = np.stack([metric.statistics(text, TEXTS[language]) for text in (*TEXTS[language], "", "x")])
    weights = np.array([[1.0, 1, 1, 1], [2, 0, 1, 1], [0, 0, 4, 0], [0, 3, 0, 1]])
    together = metric.aggregate(weights @ rows, weights.sum(axis=1))
    assert together.shape == (4,)
    for weight, one in zip(weights, together, strict=True):
        assert one == pytest.approx(corpus_score(np.repeat(rows, weight.astype(int), axis=0), metric), abs=1e-9)


def test_an_example_without_references_is_refused(make: Make, name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        make(name, "en").statistics("a", [])


def test_the_signature_is_one_line_and_tells_settings_apart(make: Make, name: str) -> None:
    metric, same, other = make(name, "en"), make(name, "en"), make(name, "zh")
    assert metric.signature == same.signature
    assert "|" in metric.signature
    assert metric.signature.isprintable()
    scores = [one.table(["a the 山", "x"], [["the a 山"], ["x"]]).tolist() for one in (metric, other)]
    assert scores[0] == scores[1] or metric.signature != other.signature
    assert metric.signature_for([["a"], ["b"]]).count("|") == metric.signature.count("|")


def test_it_says_what_it_is_and_refuses_what_is_not_a_language(make: Make, name: str) -> None:
    assert len(metrics.describe(name)) > 20
    with pytest.raises(InputError, match=r"^language: not a language tag \(got 'Klingon!'\)"):
        make(name, "Klingon!")
