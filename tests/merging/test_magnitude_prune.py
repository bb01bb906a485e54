from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.builders import random_factors

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging import merge_methods
from pomona.merging.magnitude_prune import MagnitudePrune

GENERATOR = torch.Generator()


def holding(rows: list[list[float]]) -> Factors:
    """Factors whose delta is these rows."""
    return Factors(torch.eye(len(rows[0])), torch.tensor(rows))


@pytest.mark.parametrize(
    ("weights", "density", "expected"),
    [
        # Half: [[4, 0], [0, 3]] and [[-3, 5], [0, 0]].
        ([1.0, 1.0], 0.5, [[1.0, 5.0], [0.0, 3.0]]),
        ([2.0, -1.0], 0.5, [[11.0, -5.0], [0.0, 6.0]]),
        # A quarter: the 4 and the 5.
        ([1.0, 1.0], 0.25, [[4.0, 5.0], [0.0, 0.0]]),
    ],
)
def test_two_by_two_by_hand(weights: list[float], density: float, expected: list[list[float]]) -> None:
    factors = [holding([[4.0, -1.0], [2.0, 3.0]]), holding([[-3.0, 5.0], [1.0, -2.0]])]
    merged = MagnitudePrune(density=density).merge(factors, weights, 2, GENERATOR)
    torch.testing.assert_close(merged.delta(torch.float64), torch.tensor(expected).double(), rtol=1e-6, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    sides=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    density=st.floats(0.01, 1.0),
    distinct=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_exactly_floor_of_density_entries_stay_even_where_many_are_equal(
    sides: tuple[int, int], density: float, distinct: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = (
        torch.randint(1, distinct + 1, sides, generator=generator)
        * torch.tensor([1.0, -1.0])[torch.randint(0, 2, sides, generator=generator)]
    )
    merged = MagnitudePrune(density=density).merge([holding(rows.tolist())], [1.0], 8, GENERATOR)
    assert int((merged.delta().abs() > 1e-3).sum()) == int(density * rows.numel())


def test_equals_an_independent_dense_implementation() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = [random_factors(generator, rank, 24, 40, scaling=1.0 + rank) for rank in (2, 5)]
    expected = torch.zeros(40, 24)
    for one, weight in zip(factors, (0.7, -1.2), strict=True):
        delta = one.delta().flatten()
        places = delta.abs().topk(int(0.3 * 960)).indices
        expected.view(-1).index_add_(0, places, weight * delta[places])
    merged = MagnitudePrune(density=0.3).merge(factors, [0.7, -1.2], 24, GENERATOR)
    assert (merged.delta() - expected).norm() <= 2e-6 * expected.norm()


def test_a_value_out_of_range_is_one_precise_error() -> None:
    with pytest.raises(InputError, match=r"density: must be in \(0, 1\] \(got -0\.1\)"):
        merge_methods.create("magnitude_prune", {"density": -0.1})
