from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.builders import random_factors

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging import merge_methods
from pomona.merging.breadcrumbs import Breadcrumbs

GENERATOR = torch.Generator()


def holding(rows: list[list[float]]) -> Factors:
    """Factors whose delta is these rows."""
    return Factors(torch.eye(len(rows[0])), torch.tensor(rows))


@pytest.mark.parametrize(
    ("density", "gamma", "expected"),
    [
        # 9 entries of magnitudes 1 to 9. floor(0.5 * 9) = 4 stay below the floor(0.25 * 9) = 2 largest.
        (0.5, 0.25, [[0.0, 0.0, 6.0], [5.0, -4.0, 0.0], [0.0, 7.0, 0.0]]),
        (0.5, 0.0, [[9.0, 0.0, 6.0], [0.0, 0.0, -8.0], [0.0, 7.0, 0.0]]),
        # Nothing small is dropped: floor(0.5 * 9) = 4 largest, and the next floor(0.5 * 9) = 4, so the 1 is left over.
        (0.5, 0.5, [[0.0, 2.0, 0.0], [5.0, -4.0, 0.0], [3.0, 0.0, 0.0]]),
        (1.0, 0.0, [[9.0, 2.0, 6.0], [5.0, -4.0, -8.0], [3.0, 7.0, 1.0]]),
    ],
)
def test_three_by_three_by_hand(density: float, gamma: float, expected: list[list[float]]) -> None:
    one = holding([[9.0, 2.0, 6.0], [5.0, -4.0, -8.0], [3.0, 7.0, 1.0]])
    merged = Breadcrumbs(density=density, gamma=gamma).merge([one], [1.0], 3, GENERATOR)
    torch.testing.assert_close(merged.delta(torch.float64), torch.tensor(expected).double(), rtol=1e-6, atol=2e-6)


def test_weighted_sum_without_rescaling() -> None:
    factors = [holding([[4.0, -1.0], [2.0, 3.0]]), holding([[-3.0, 5.0], [1.0, -2.0]])]
    merged = Breadcrumbs(density=0.5, gamma=0.25).merge(factors, [1.0, -2.0], 2, GENERATOR)
    expected = torch.tensor([[6.0, 0.0], [2.0, 3.0 + 4.0]], dtype=torch.float64)
    torch.testing.assert_close(merged.delta(torch.float64), expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    sides=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    density=st.floats(0.01, 0.7),
    gamma=st.floats(0.0, 0.3),
    distinct=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_exact_counts_and_the_order_of_equal_entries(
    sides: tuple[int, int], density: float, gamma: float, distinct: int, seed: int
) -> None:
    delta = torch.randint(1, distinct + 1, sides, generator=torch.Generator().manual_seed(seed)).float()
    merged = Breadcrumbs(density=density, gamma=gamma).merge([holding(delta.tolist())], [1.0], 8, GENERATOR)
    flat = delta.flatten().tolist()
    ranked = sorted(range(len(flat)), key=lambda place: -flat[place])
    outliers = int(gamma * len(flat))
    expected = torch.zeros(len(flat))
    for place in ranked[outliers : outliers + int(density * len(flat))]:
        expected[place] = flat[place]
    torch.testing.assert_close(merged.delta(), expected.view(sides), rtol=1e-5, atol=1e-5)


def test_equals_an_independent_dense_implementation() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = [random_factors(generator, 3, 24, 40, scaling=2.0) for _ in range(2)]
    expected = torch.zeros(40, 24)
    for one, weight in zip(factors, (1.0, 0.4), strict=True):
        delta = one.delta().flatten()
        ascending = delta.abs().argsort()
        dropped_below = 960 - int(0.85 * 960) - int(0.05 * 960)
        places = ascending[dropped_below : 960 - int(0.05 * 960)]
        expected.view(-1).index_add_(0, places, weight * delta[places])
    merged = Breadcrumbs(density=0.85, gamma=0.05).merge(factors, [1.0, 0.4], 24, GENERATOR)
    assert (merged.delta() - expected).norm() <= 2e-6 * expected.norm()


def test_shares_may_add_up_to_one() -> None:
    merged = Breadcrumbs(density=0.9, gamma=0.1).merge([holding([[float(value) for value in range(1, 11)]])], [1.0], 1, GENERATOR)
    assert merged.delta().flatten().tolist() == pytest.approx([1, 2, 3, 4, 5, 6, 7, 8, 9, 0], abs=1e-5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"gamma": -0.1}, r"gamma: must be in \[0, 1\] \(got -0\.1\)"),
        ({"gamma": 0.2}, r"gamma: must be at most 1 - density \(got 0\.2\)\. Lower gamma or density"),
        ({"density": 0.0}, r"density: must be in \(0, 1\] \(got 0\.0\)"),
        ({"on": "factors"}, "has no parameter 'on'"),
    ],
)
def test_a_value_out_of_range_is_one_precise_error(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        merge_methods.create("breadcrumbs", parameters)
