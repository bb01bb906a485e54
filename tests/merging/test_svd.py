from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.builders import random_factors
from torch import Tensor

from pomona.adapters import Factors
from pomona.merging import Svd

GENERATOR = torch.Generator()


def exact(factors: list[Factors], weights: list[float]) -> Tensor:
    parts = [weight * one.scaling * (one.B.double() @ one.A.double()) for one, weight in zip(factors, weights, strict=True)]
    return torch.stack(parts).sum(0)


def error(merged: Factors, dense: Tensor) -> float:
    return float((merged.B.double() @ merged.A.double() - dense).norm())


def optimal_error(dense: Tensor, rank: int) -> float:
    """Eckart-Young, from the dense matrix's own singular values."""
    return float(torch.linalg.svdvals(dense)[rank:].norm())


@settings(max_examples=40, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    sides=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    rank=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_error_is_the_optimal_one(ranks: list[int], sides: tuple[int, int], rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    factors = [random_factors(generator, one, *sides, scaling=0.5 + place) for place, one in enumerate(ranks)]
    weights = [1.0, -0.5, 2.0][: len(factors)]
    dense = exact(factors, weights)
    merged = Svd().merge(factors, weights, rank, GENERATOR)
    assert merged.rank == min(rank, sum(ranks), *sides)
    assert error(merged, dense) == pytest.approx(optimal_error(dense, rank), rel=1e-4, abs=1e-6 * float(dense.norm()))


def test_badly_scaled_and_rank_deficient() -> None:
    generator = torch.Generator().manual_seed(0)
    tiny, huge = random_factors(generator, 4, scaling=1e-6), random_factors(generator, 4, scaling=1e6)
    twice = [huge, huge]
    assert error(Svd().merge(twice, [1.0, 1.0], 4, GENERATOR), exact(twice, [1.0, 1.0])) <= 1e-6 * float(
        exact(twice, [1.0, 1.0]).norm()
    )
    # The huge part cancels: what is left is twelve orders of magnitude smaller and must still be there.
    rest = [huge, tiny, huge]
    weights = [1.0, 1.0, -1.0]
    merged = Svd().merge(rest, weights, 4, GENERATOR)
    assert error(merged, tiny.delta(torch.float64)) <= 0.01 * float(tiny.delta(torch.float64).norm())


def test_repeated_singular_values() -> None:
    identity = Factors(torch.eye(6, 8), torch.eye(9, 6))
    merged = Svd().merge([identity], [1.0], 4, GENERATOR)
    assert error(merged, exact([identity], [1.0])) == pytest.approx(2.0**0.5, rel=1e-6)


def test_factors_are_balanced_and_ordered() -> None:
    factors = random_factors(torch.Generator().manual_seed(0), 5)
    merged = Svd().merge([factors], [1.0], None, GENERATOR)
    singular = torch.linalg.svdvals(factors.delta(torch.float64))[:5].float()
    torch.testing.assert_close(merged.A @ merged.A.T, singular.diag(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merged.B.T @ merged.B, singular.diag(), rtol=1e-5, atol=1e-5)


def test_default_rank_is_the_largest_of_the_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    assert Svd().merge([random_factors(generator, 2), random_factors(generator, 5)], [1.0, 1.0], None, GENERATOR).rank == 5


def test_zero_deltas() -> None:
    zero = Factors(torch.zeros(3, 4), torch.zeros(5, 3))
    assert torch.equal(Svd().merge([zero], [1.0], None, GENERATOR).delta(), torch.zeros(5, 4))
