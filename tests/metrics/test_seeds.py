from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.metrics.seeds import Spread, spread


def test_by_hand() -> None:
    # Deviations from 30 are -2, 0 and 2: the sample variance is 8 / 2.
    assert spread([28.0, 30.0, 32.0]) == Spread(mean=30.0, deviation=2.0, n=3, missing=0)
    assert spread([28.0, None, 32.0]) == pytest.approx((30.0, math.sqrt(8), 2, 1))


def test_what_is_not_known_is_none_and_not_zero() -> None:
    assert spread([28.0]) == Spread(mean=28.0, deviation=None, n=1, missing=0)
    assert spread([None, 28.0, None]) == Spread(mean=28.0, deviation=None, n=1, missing=2)
    assert spread([None, None]) == Spread(mean=None, deviation=None, n=0, missing=2)
    assert spread([]) == Spread(mean=None, deviation=None, n=0, missing=0)
    assert spread([0.0, 0.0]) == Spread(mean=0.0, deviation=0.0, n=2, missing=0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1000, 1000), min_size=2, max_size=10))
def test_equals_numpy(values: list[float]) -> None:
    found = spread(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-9)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="values must be finite, or None where not known"):
        spread([1.0, wrong])
