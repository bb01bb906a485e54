"""Texts of another script than their language's: a warning, and no full marks for texts that say different things."""

from __future__ import annotations

import pytest

from pomona.metrics import Rouge1, RougeL, RougeLsum
from pomona.metrics.base import Metric
from pomona.metrics.script import script_warning
from pomona.metrics.text import words

RUSSIAN, OTHER = "В 2020 году было тепло", "До 2020 лет стало холодно"


def score(metric: Metric, prediction: str, reference: str) -> float:
    return float(metric.aggregate(metric.statistics(prediction, [reference])[None], metric.table(["a"], [["a"]])[:, 0])[0])


@pytest.mark.parametrize("metric", [Rouge1(), RougeL(), RougeLsum()], ids=lambda metric: type(metric).__name__)
def test_texts_of_which_english_rules_keep_the_digits_alone_are_not_equal(metric: Metric) -> None:
    assert score(metric, RUSSIAN, RUSSIAN) == 100
    assert score(metric, RUSSIAN, OTHER) == pytest.approx(20)  # one of five words on either side
    assert score(metric, "5 à", "5 é") == pytest.approx(50)
    assert score(metric, "5!", "5?") == 100  # without a letter the published rules stand


def test_texts_with_letters_that_english_reads_are_cut_as_ever() -> None:
    assert words("Été 2020, ça", "en") == ("t", "2020", "a")
    assert words(RUSSIAN, "en") == words(RUSSIAN, "ru") == ("в", "2020", "году", "было", "тепло")


@pytest.mark.parametrize(
    ("texts", "language", "metrics", "share"),
    [
        ([RUSSIAN], "en", ["rouge_l"], "100%"),
        (["abcd жжжж"], "en", ["rouge_l", "bleu"], "50%"),
        ([RUSSIAN], "en", ["bleu", "chrf"], None),  # these read any letter
        ([RUSSIAN], "ru", ["rouge_l"], None),
        (["Le été naïf de la côte est là"], "fr", ["rouge_l"], None),
        (["The café serves a naïve clientele of many well-travelled guests"], "en", ["rouge_l"], None),
        (["红狐跳过"], "fr", ["token_f1"], "100%"),
        (["红狐跳过"], "zh-hant", ["token_f1", "rouge_l"], None),
        (["2020!"], "en", ["rouge_l"], None),
        ([], "en", ["rouge_l"], None),
    ],
)
def test_a_warning_by_the_share_of_letters_that_are_not_read(
    texts: list[str], language: str, metrics: list[str], share: str | None
) -> None:
    found = script_warning(texts, language, metrics, "the references")
    assert (found and found.partition(" ")[0]) == share
    assert (
        found is None
        or f"of the references are of a script that {', '.join(one for one in metrics if one != 'chrf')} cannot" in found
    )
