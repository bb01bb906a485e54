from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.control.within_rounds import EXACT_UP_TO, gain_p_value, signed_sums


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


# Whole numbers: their sums are exact, so ties are ties.
@given(st.lists(st.integers(-4, 6), min_size=1, max_size=7))
@settings(deadline=None, max_examples=60)
def test_equals_counting_all_patterns(gains: list[int]) -> None:
    reached = [sum(s * g for s, g in zip(signs, gains, strict=True)) >= sum(gains) for signs in product((1, -1), repeat=len(gains))]
    assert gain_p_value(gains, _generator()) == sum(reached) / len(reached)


def test_by_hand() -> None:
    assert gain_p_value([0.1, 0.2, 0.3], _generator()) == 1 / 8
    assert gain_p_value([0.3, 0.2, -0.1], _generator()) == 2 / 8  # only +0.1 instead of -0.1 does better
    assert gain_p_value([0.0] * 5, _generator()) == 1.0
    assert gain_p_value([-0.1, -0.2], _generator()) == 1.0
    assert gain_p_value([0.01] * 16, _generator()) == 2**-16


def test_rounding_does_not_break_ties() -> None:
    # 0.1 + 0.2 + 0.3 in another order is another float: the two patterns below must count as equal.
    assert gain_p_value([0.3, 0.1, 0.2, -0.6], _generator()) == gain_p_value([3, 1, 2, -6], _generator())


def test_many_examples_are_drawn_from_the_given_generator() -> None:
    gains = np.random.default_rng(0).normal(0.3, 1.0, size=40)
    first = gain_p_value(gains.tolist(), _generator())
    assert first == gain_p_value(gains.tolist(), _generator())
    assert (first * 10_000) == pytest.approx(round(first * 10_000), abs=1e-6)
    z = gains.sum() / np.sqrt((gains**2).sum())  # the patterns' sums are nearly normal with this deviation
    normal = 0.5 * (1 - torch.erf(torch.tensor(z / 2**0.5)).item())
    assert first == pytest.approx(normal, abs=0.015)
    assert gain_p_value([1.0] * (EXACT_UP_TO + 14), _generator()) == 1 / 10_000


def test_the_values_of_one_example_share_their_sign() -> None:
    sums = signed_sums(np.array([[1.0, 10.0], [2.0, -20.0]]), _generator())
    assert sums[0].tolist() == [3.0, -10.0]
    assert sorted(map(tuple, sums.tolist())) == [(-3.0, 10.0), (-1.0, 30.0), (1.0, -30.0), (3.0, -10.0)]


def test_under_no_gain_small_p_values_are_as_rare_as_they_say() -> None:
    draws = np.random.default_rng(1).normal(size=(400, 10))
    p_values = np.array([gain_p_value(gains.tolist(), _generator()) for gains in draws])
    assert 0.06 < np.mean(p_values <= 0.10) < 0.14
    assert 0.44 < np.mean(p_values <= 0.50) < 0.56
