"""Variances of runs that answered the same examples, against a two-way analysis of variance and tables by scipy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pomona.metrics.crossed import Crossed, crossed


def left_out(values_KN: np.ndarray) -> np.ndarray:
    """Each run's mean without each example, [N, K]."""
    count = values_KN.shape[1]
    return ((values_KN.sum(axis=1, keepdims=True) - values_KN) / (count - 1)).T


def test_the_parts_are_those_of_a_two_way_analysis_of_variance() -> None:
    random = np.random.default_rng(0)
    values_KN = random.normal(size=(4, 1)) + random.normal(size=(1, 9)) + random.normal(size=(4, 9))
    found = crossed(values_KN.mean(axis=1), left_out(values_KN))
    assert found is not None
    # Mean squares of a two-way table with one observation a cell.
    runs, examples, grand = values_KN.mean(axis=1), values_KN.mean(axis=0), values_KN.mean()
    of_runs = 9 * ((runs - grand) ** 2).sum() / 3
    of_examples = 4 * ((examples - grand) ** 2).sum() / 8
    of_both = ((values_KN - runs[:, None] - examples + grand) ** 2).sum() / (3 * 8)
    assert found.between == pytest.approx(of_runs / 9, rel=1e-12)
    assert found.own == pytest.approx(of_both / 9, rel=1e-12)
    assert found.shared == pytest.approx((of_examples - of_both) / 4 / 9, rel=1e-12)
    # var = s_seed^2 / K + s_example^2 / N - s_interaction^2 / (K N), each the mean square of means.
    assert found.error**2 == pytest.approx((of_runs / 9) / 4 + (of_examples / 4) / 9 - of_both / (4 * 9), rel=1e-12)
    assert (found.runs, found.clusters) == (4, 9)


def test_examples_that_do_nothing_leave_students_test_of_the_runs() -> None:
    scores = np.array([1.0, 2.0, 4.5])
    found = Crossed(between=float(np.var(scores, ddof=1)), shared=0.0, own=0.0, runs=3, clusters=50)
    expected: Any = stats.ttest_1samp(scores, 0.0)
    assert found.degrees == pytest.approx(2.0)
    assert found.p_value(float(scores.mean()), 0.0) == pytest.approx(expected.pvalue, rel=1e-9)
    ends = expected.confidence_interval(0.95)
    assert found.widened(float(scores.mean()), 2.4, 2.6) == pytest.approx((ends.low, ends.high), rel=1e-9)


def test_degrees_by_hand() -> None:
    found = Crossed(between=6.0, shared=4.0, own=1.0, runs=3, clusters=11)
    # seeds' part 2 of 6; with half of the shared part, 2 of 4.
    assert found.error == pytest.approx(math.sqrt(6.0))
    assert found.degrees == pytest.approx(1 / ((1 / 2) ** 2 / 2 + (4 / 6) ** 2 / 10))
    two = Crossed(between=4.0, shared=4.0, own=1.0, runs=2, clusters=11)
    assert two.degrees == pytest.approx(1 / ((1 / 2) / 1 + (4 / 6) ** 2 / 10))


def test_runs_that_differ_no_more_than_their_examples_explain_change_nothing() -> None:
    """The median of what they would differ by: half of chi-squares with two degrees lie below 1.386, of four below 3.357."""
    for runs, middle in ((3, float(stats.chi2.median(2)) / 2), (5, float(stats.chi2.median(4)) / 4)):
        alike, apart = (Crossed(share * middle, 0.5, 1.0, runs, 50) for share in (0.97, 1.03))
        assert alike.runs_alike
        assert not apart.runs_alike
        assert alike.widened(1.0, 0.0, 2.0) == (0.0, 2.0)
        assert alike.p_value(1.0, 0.2) == 0.2
    assert not Crossed(0.01, 0.5, 1.0, 2, 50).runs_alike
    assert Crossed(0.0, 0.5, 1.0, 2, 50).runs_alike


def test_ends_and_p_value_never_say_more_than_for_these_runs() -> None:
    apart = Crossed(between=1.0, shared=0.01, own=0.1, runs=3, clusters=50)
    low, high = apart.widened(3.0, -9.0, 3.1)
    assert low == -9.0
    assert high == pytest.approx(3.0 + stats.t.ppf(0.975, apart.degrees) * apart.error)
    assert apart.p_value(3.0, 0.9) == 0.9
    assert apart.p_value(3.0, 0.0) == pytest.approx(2 * stats.t.sf(3.0 / apart.error, apart.degrees), rel=1e-9)


def test_one_run_or_one_cluster_says_nothing_of_new_runs() -> None:
    assert crossed(np.array([1.0]), np.ones((5, 1))) is None
    assert crossed(np.array([1.0, 2.0]), np.ones((1, 2))) is None
    assert crossed(np.array([1.0, 2.0]), np.array([[1.0, 2.0], [math.nan, 2.0]])) is None
