"""Scores of answers, against numbers made by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pomona.data import Example
from pomona.errors import InputError
from pomona.evaluation.answers import Answers
from pomona.evaluation.scores import LOSS, MeanLoss, example_groups, make_metrics, score
from pomona.metrics import ExactMatch, Rouge1


def example(name: str, target: str = "sum of rows", group: str | None = None, references: tuple[str, ...] = ()) -> Example:
    return Example(name, f"{name} values\n\nSummary:", f" {target}", references or (target,), name, group)


def scores(
    texts: tuple[str, ...], losses: tuple[float, ...], examples: tuple[Example, ...], names: tuple[str, ...], draws: int = 400
):
    return score(Answers(texts, losses, 0.0), examples, make_metrics(names, "en"), draws=draws, seed=3)


def test_scores_by_hand() -> None:
    examples = (example("a", "red fox"), example("b", "one two three four"), example("c", "x", references=("x", "two words")))
    found = scores(("red fox", "one two", "two words"), (1.0, 2.0, 6.0), examples, ("exact_match", "rouge_1"))
    assert list(found) == ["exact_match", "rouge_1", LOSS]
    assert found["exact_match"].value == pytest.approx(200 / 3, abs=1e-9)
    # Precision 1 and recall 1/2 give F1 2/3; the best reference counts.
    assert found["rouge_1"].value == pytest.approx(100 * (1 + 2 / 3 + 1) / 3, abs=1e-9)
    assert found[LOSS].value == pytest.approx(3.0, abs=1e-12)
    assert found[LOSS].statistics.tolist() == [[1.0], [2.0], [6.0]]
    for one in found.values():
        assert one.low <= one.value <= one.high


def test_an_interval_of_equal_examples_is_a_point() -> None:
    examples = tuple(example(name, "red fox") for name in "abcd")
    found = scores(("red fox",) * 4, (2.0,) * 4, examples, ("exact_match",))
    assert (found["exact_match"].low, found["exact_match"].high) == (100.0, 100.0)
    assert (found[LOSS].low, found[LOSS].high) == (2.0, 2.0)


def test_the_seed_fixes_the_interval() -> None:
    examples = tuple(example(str(number)) for number in range(20))
    losses = tuple(float(number) for number in range(20))
    first, again = (scores(("",) * 20, losses, examples, (), draws=2000) for _ in range(2))
    assert (first[LOSS].low, first[LOSS].high) == (again[LOSS].low, again[LOSS].high)
    # Of a mean of 20 equal steps: the 97.5 % quantile of Student's t, times the standard error with 19 in the denominator.
    error = float(np.std(losses, ddof=1)) / math.sqrt(20)
    assert first[LOSS].high - first[LOSS].low == pytest.approx(2 * stats.t.ppf(0.975, 19) * error, rel=0.1)


def width(documents: int, questions: int, *, together: bool) -> float:
    """Of the interval of the mean loss, where all questions on a document have one loss, 0, 1, 2 or 3."""
    count = documents * questions
    examples = tuple(example(str(place), group=f"g{place // questions}" if together else None) for place in range(count))
    losses = tuple(float(place // questions % 4) for place in range(count))
    found = scores(("",) * count, losses, examples, (), draws=2000)[LOSS]
    assert found.value == 1.5
    return found.high - found.low


def test_examples_of_one_document_are_drawn_together() -> None:
    # Five questions that agree are worth one, so the standard error grows by the root of 5; and Student's t is that of 40 - 1
    # degrees of freedom, not of 200 - 1, as is the denominator of the deviation.
    expected = math.sqrt(5) * stats.t.ppf(0.975, 39) * math.sqrt(40 / 39) / (stats.t.ppf(0.975, 199) * math.sqrt(200 / 199))
    assert width(40, 5, together=True) / width(40, 5, together=False) == pytest.approx(expected, rel=0.1)


def test_four_documents_say_little() -> None:
    """A draw has one document four times in 1 of 256, more often than the interval leaves out: it spans all there is."""
    assert stats.norm.cdf(-math.sqrt(4 / 3) * stats.t.ppf(0.975, 3)) < 1 / 256
    assert width(4, 5, together=True) == 3.0


def test_groups() -> None:
    assert example_groups((example("a"), example("b"))) is None
    assert example_groups((example("a", group="g"), example("b", group="h"))) is None
    assert example_groups((example("a", group="g"), example("b"), example("c", group="g"))) == ["g", "b", "g"]


def test_the_loss_is_not_made_from_texts() -> None:
    with pytest.raises(TypeError, match="measured by the model"):
        MeanLoss().statistics("a", ["a"])
    assert MeanLoss().aggregate(np.array([[6.0], [3.0]]), np.array([3.0, 2.0])).tolist() == [2.0, 1.5]


def test_metrics_speak_the_task_s_language() -> None:
    chinese = make_metrics(("rouge_1",), "zh")["rouge_1"]
    assert (
        chinese.statistics("红狐", ["红狐"]).tolist() == make_metrics(("rouge_1",), "en")["rouge_1"].statistics("a", ["a"]).tolist()
    )
    with pytest.raises(InputError, match="no such metric"):
        make_metrics(("rouge_9",), "en")


@pytest.mark.parametrize(
    ("chosen", "part"),
    [
        (["rouge_1", "rouge_1"], "metrics: the metric is there twice (got 'rouge_1')"),
        (["rouge_1", {"name": "rouge_1"}], "metrics: the metric is there twice"),
        ([{"language": "en"}], "metrics: a metric needs a name (got {'language': 'en'})"),
        ([5.0], "metrics: a metric needs a name (got 5.0)"),
        ([None], "metrics: a metric needs a name (got None)"),
        ([["rouge_1"]], "metrics: a metric needs a name"),
        ([{"name": 3}], "metrics: a metric needs a name"),
        ([{"name": "rouge_1", "langage": "en"}], "metric 'rouge_1' has no parameter 'langage'. Did you mean 'language'?"),
        ([{"name": "rouge_1", 1: 2}], "metric 'rouge_1' has no parameter 1"),
        ([{"name": "rouge_1", "language": 5}], "language: metric 'rouge_1': input should be a valid string (got 5)"),
        ([{"name": "exact_match", "arabic_article": "never"}], "arabic_article"),
    ],
    ids=str,
)
def test_metrics_that_cannot_be_made(chosen: Any, part: str) -> None:
    with pytest.raises(InputError) as caught:
        make_metrics(chosen, "en")
    assert part in str(caught.value)


def test_a_metric_s_own_parameters_go_before_the_task_s_language() -> None:
    found = make_metrics(["rouge_1", {"name": "exact_match", "language": "ar", "arabic_article": "anywhere"}], "zh")
    assert found == {"rouge_1": Rouge1(language="zh"), "exact_match": ExactMatch(language="ar", arabic_article="anywhere")}


def test_an_answer_is_missing() -> None:
    with pytest.raises(ValueError, match="longer than argument 1"):
        scores(("a",), (1.0, 2.0), (example("a"), example("b")), ("exact_match",))
