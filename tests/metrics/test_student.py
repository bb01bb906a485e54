from __future__ import annotations

import math

import pytest
from scipy import stats

from pomona.metrics.student import student_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 29, 49, 100, 299, 999, 1000, 1001, 10_000, 1_000_000])
def test_equals_scipy(degrees: int) -> None:
    for probability in (1e-4, 0.001, 0.025, 0.3, 0.5, 0.6, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9995, 0.9999):
        expected = float(stats.t.ppf(probability, degrees))
        assert student_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_by_hand() -> None:
    # One degree is the Cauchy distribution; of two, t = (2 p - 1) / sqrt(2 p (1 - p)).
    assert student_quantile(0.975, 1) == pytest.approx(math.tan(math.pi * 0.475), rel=1e-12)
    assert student_quantile(0.9, 2) == pytest.approx(0.8 / math.sqrt(0.18), rel=1e-12)


@pytest.mark.parametrize(("probability", "degrees"), [(0.0, 3), (1.0, 3), (float("nan"), 3), (0.9, 0)])
def test_what_has_no_quantile_is_refused(probability: float, degrees: int) -> None:
    with pytest.raises(ValueError, match=r"probability must be in \(0, 1\) and degrees >= 1"):
        student_quantile(probability, degrees)
