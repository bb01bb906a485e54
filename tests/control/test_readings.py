from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pomona.control.curve_model import readings

ROOT2 = math.sqrt(2)


def test_two_ratios_of_a_round_make_one_contrast() -> None:
    (found,) = readings([(0.0, 0.4)], [[[1.0, 2.0], [1.5, 3.5]]])
    assert found.n == 2
    assert found.ratios.tolist() == [0.0, 0.4]
    assert found.contrasts.tolist() == [[pytest.approx(-1 / ROOT2), pytest.approx(1 / ROOT2)]]
    assert found.mean.tolist() == [pytest.approx((0.5 + 1.5) / 2 / ROOT2)]
    # Deviations of 0.5 / sqrt 2 and 1.5 / sqrt 2 from their mean of 1 / sqrt 2.
    assert found.scatter.tolist() == [[pytest.approx(2 * (0.5 / ROOT2) ** 2)]]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 100))
def test_contrasts_are_orthonormal_and_blind_to_each_round_s_level(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    ratios = [rng.uniform(0, 1, size).tolist() for size in sizes]
    losses = [rng.normal(2, 1, (size, 3)) for size in sizes]
    found = readings(ratios, [one.tolist() for one in losses])
    if max(sizes) == 1:
        assert found == ()
        return
    contrasts = found[0].contrasts
    assert contrasts.shape == (sum(sizes) - len(sizes), sum(sizes))
    np.testing.assert_allclose(contrasts @ contrasts.T, np.eye(len(contrasts)), atol=1e-12)
    moved = readings(ratios, [(one + rng.normal(0, 5, 3)).tolist() for one in losses])
    np.testing.assert_allclose(moved[0].mean, found[0].mean, atol=1e-12)
    np.testing.assert_allclose(moved[0].scatter, found[0].scatter, atol=1e-10)


def test_examples_that_saw_other_measurements_stand_apart() -> None:
    first, second = readings([(0.4, 0.2, 0.6)], [[[1.0, 2.0, 3.0], [1.5, 2.5, 3.25], [None, 4.0, 5.0]]])
    assert (first.n, second.n) == (1, 2)
    assert first.ratios.tolist() == [0.4, 0.2]
    assert second.ratios.tolist() == [0.4, 0.2, 0.6]
    assert first.mean.tolist() == [pytest.approx(0.5 / ROOT2)]


@pytest.mark.parametrize(
    ("ratios", "losses"),
    [
        ([], []),
        ([(0.4,), (0.5,)], [[[1.0, 2.0]], [[3.0, 4.0]]]),  # one ratio a round
        ([(0.4, 0.5)], [[[1.0, None], [None, 2.0]]]),  # nobody saw two
        ([(0.4, 0.5)], [[[2.3, 0.1 + 0.2], [2.3, 0.3]]]),  # equal up to rounding
    ],
)
def test_where_nothing_is_compared_there_is_nothing_to_read(
    ratios: list[tuple[float, ...]], losses: list[list[list[float | None]]]
) -> None:
    assert readings(ratios, losses) == ()
