from __future__ import annotations

import math

import pytest
from scipy import stats

from pomona.metrics.student import student_quantile, student_tail


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 29, 49, 100, 299, 999, 1000, 1001, 10_000, 1_000_000])
def test_equals_scipy(degrees: int) -> None:
    for probability in (1e-4, 0.001, 0.025, 0.3, 0.5, 0.6, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9995, 0.9999):
        expected = float(stats.t.ppf(probability, degrees))
        assert student_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("degrees", [1, 1.3, 2.5, 3.99, 17.2, 640.5, 5e4, 1e9])
def test_degrees_need_not_be_whole_and_tails_equal_scipy(degrees: float) -> None:
    for probability in (0.6, 0.975, 0.9995):
        assert student_quantile(probability, degrees) == pytest.approx(float(stats.t.ppf(probability, degrees)), rel=1e-9)
    for t in (0.0, 1e-6, 0.7, 2.0, 12.7, 300.0):
        assert student_tail(t, degrees) == pytest.approx(float(stats.t.sf(t, degrees)), rel=1e-5, abs=1e-300)
    assert student_tail(math.inf, degrees) == 0.0


def test_by_hand() -> None:
    # One degree is the Cauchy distribution; of two, t = (2 p - 1) / sqrt(2 p (1 - p)).
    assert student_quantile(0.975, 1) == pytest.approx(math.tan(math.pi * 0.475), rel=1e-12)
    assert student_quantile(0.9, 2) == pytest.approx(0.8 / math.sqrt(0.18), rel=1e-12)


@pytest.mark.parametrize(("probability", "degrees"), [(0.0, 3), (1.0, 3), (float("nan"), 3), (0.9, 0)])
def test_what_has_no_quantile_is_refused(probability: float, degrees: int) -> None:
    with pytest.raises(ValueError, match=r"probability must be in \(0, 1\) and degrees >= 1"):
        student_quantile(probability, degrees)


@pytest.mark.parametrize(("t", "degrees"), [(-1.0, 3), (float("nan"), 3), (1.0, 0.5)])
def test_what_has_no_tail_is_refused(t: float, degrees: float) -> None:
    with pytest.raises(ValueError, match=r"t must be >= 0 and degrees >= 1"):
        student_tail(t, degrees)
