from __future__ import annotations

import itertools

import pytest
import torch
from tests.adapters.builders import random_factors
from tests.merging.dense import GENERATOR, delta, error, exact, nonzero, ties
from torch import Tensor

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging.knots import Knots, shared_coordinates
from pomona.merging.subspace import combined

SIDES = pytest.mark.parametrize(("out_features", "in_features"), [(24, 18), (18, 24)])


def three(out_features: int = 24, in_features: int = 18) -> list[Factors]:
    generator = torch.Generator().manual_seed(3)
    return [random_factors(generator, rank, in_features, out_features, scale) for rank, scale in ((3, 0.5), (5, 2.0), (2, 1.0))]


def dense_knots(factors: list[Factors], weights: list[float], density: float) -> Tensor:
    U, S, V_T = torch.linalg.svd(torch.cat([delta(one) for one in factors], dim=1), full_matrices=False)
    keep = nonzero(S)
    parts = (S[:keep, None] * V_T[:keep]).split(factors[0].in_features, dim=1)
    return U[:, :keep] @ ties([weight * part for part, weight in zip(parts, weights, strict=True)], density)


@SIDES
@pytest.mark.parametrize("density", [0.2, 0.55, 1.0])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, -1.5, 2.0]])
def test_equals_the_dense_definition(out_features: int, in_features: int, density: float, weights: list[float]) -> None:
    factors = three(out_features, in_features)
    merged = Knots(density=density).merge(factors, weights, None, GENERATOR)
    assert error(merged, dense_knots(factors, weights, density)) <= 1e-6
    assert merged.rank == 10


def test_by_hand() -> None:
    # Outputs e1 and e2 of strengths 3 and 1 in both adapters; the inputs agree in x1 and x4, disagree in x2, and x3 is one's own.
    one = Factors(torch.tensor([[1.0, 2, 0, 0], [0, 0, 0, 1]]), torch.diag(torch.tensor([3.0, 1.0])))
    two = Factors(torch.tensor([[3.0, -1, 2, 0], [0, 0, 0, 3]]), torch.diag(torch.tensor([3.0, 1.0])))
    merged = Knots(density=1.0).merge([one, two], [1.0, 1.0], None, GENERATOR)
    expected = torch.tensor([[6.0, 6, 6, 0], [0, 0, 0, 2]])
    torch.testing.assert_close(merged.delta(), expected, rtol=1e-6, atol=1e-6)
    # Of eight coordinates each the two largest stay: 3 and 6 of the first, 9 and 6 of the second.
    trimmed = Knots(density=0.25).merge([one, two], [1.0, 1.0], None, GENERATOR)
    torch.testing.assert_close(trimmed.delta(), torch.tensor([[6.0, 6, 6, 0], [0, 0, 0, 0]]), rtol=1e-6, atol=1e-6)


def test_trimming_weighs_by_the_singular_values() -> None:
    # Trimming V_k instead would keep an entry of each row: both are unit vectors there.
    one = Factors(torch.eye(2, 3), torch.diag(torch.tensor([5.0, 1.0])))
    merged = Knots(density=0.17).merge([one], [1.0], None, GENERATOR)
    torch.testing.assert_close(merged.delta(), torch.tensor([[5.0, 0, 0], [0, 0, 0]]), rtol=1e-6, atol=1e-6)


@SIDES
def test_sum_is_the_weighted_sum(out_features: int, in_features: int) -> None:
    factors = three(out_features, in_features)
    merged = Knots(combine="sum").merge(factors, [0.5, -1.0, 3.0], None, GENERATOR)
    assert error(merged, exact(factors, [0.5, -1.0, 3.0])) <= 1e-6


def test_coordinates_hold_every_delta() -> None:
    factors = three()
    U_OK, parts = shared_coordinates(factors)
    torch.testing.assert_close(U_OK.T @ U_OK, torch.eye(10, dtype=torch.float64), rtol=0, atol=1e-12)
    for one, part in zip(factors, parts, strict=True):
        torch.testing.assert_close(U_OK @ part, delta(one), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("combine", ["ties", "sum"])
def test_rank_is_the_best_approximation_of_the_whole_result(combine: str) -> None:
    factors, weights = three(), [1.0, 0.5, -1.0]
    method = Knots(combine=combine, density=0.5)  # pyright: ignore[reportArgumentType]
    whole = delta(method.merge(factors, weights, None, GENERATOR))
    U, S, V_T = torch.linalg.svd(whole, full_matrices=False)
    for rank in (1, 4, 30):
        merged = method.merge(factors, weights, rank, GENERATOR)
        assert merged.rank == min(rank, 10)
        assert error(merged, U[:, :rank] @ S[:rank].diag() @ V_T[:rank]) <= 1e-6


def test_rank_never_exceeds_the_sides() -> None:
    generator = torch.Generator().manual_seed(1)
    factors = [random_factors(generator, 6, 4, 20) for _ in range(3)]
    merged = Knots(density=0.5).merge(factors, [1.0, 1.0, 1.0], None, GENERATOR)
    assert merged.rank == 4
    assert error(merged, dense_knots(factors, [1.0, 1.0, 1.0], 0.5)) <= 1e-6


def test_permuting_adapters_changes_nothing() -> None:
    factors, weights = three(), [0.3, 1.0, -0.8]
    expected = Knots().merge(factors, weights, None, GENERATOR).delta()
    for order in itertools.permutations(range(3)):
        merged = Knots().merge([factors[k] for k in order], [weights[k] for k in order], None, GENERATOR)
        assert torch.equal(merged.delta(), expected)


def test_permuting_adapters_with_repeated_singular_values_changes_nothing() -> None:
    # Singular values 1, 1, 1: the basis is arbitrary, but the same for every order.
    factors = [Factors(torch.eye(6)[k : k + 1] + 0.1 * torch.eye(6)[5:], torch.eye(5)[:, k : k + 1]) for k in range(3)]
    expected = Knots(density=0.3).merge(factors, [1.0, 1.0, 1.0], None, GENERATOR).delta()
    for order in itertools.permutations(factors):
        assert torch.equal(Knots(density=0.3).merge(order, [1.0, 1.0, 1.0], None, GENERATOR).delta(), expected)


def test_signs_of_the_basis_have_no_effect() -> None:
    generator = torch.Generator().manual_seed(2)
    parts = [torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(3)]
    rows = torch.tensor([1.0, -1, -1, 1, -1], dtype=torch.float64)[:, None]
    columns = torch.tensor([-1.0, 1, -1, 1, 1, -1, 1], dtype=torch.float64)
    flipped = combined([rows * part * columns for part in parts], "ties", 0.6)
    assert torch.equal(flipped, rows * combined(parts, "ties", 0.6) * columns)


def test_one_adapter_at_density_one_is_itself() -> None:
    one = three()[1]
    assert error(Knots(density=1.0).merge([one], [1.0], None, GENERATOR), delta(one)) <= 1e-6


def test_repeated_adapters_are_their_weights_mean_and_opposite_ones_cancel() -> None:
    one = three()[1]
    merged = Knots(density=1.0).merge([one, one], [1.0, 3.0], None, GENERATOR)
    assert merged.rank == 5
    assert error(merged, 2 * delta(one)) <= 1e-6
    cancelled = Knots(density=1.0).merge([one, one], [1.0, -1.0], None, GENERATOR)
    assert float(delta(cancelled).norm()) <= 1e-6 * float(delta(one).norm())


def test_repeated_adapters_trim_as_one_does() -> None:
    # Null directions of the doubled stack would otherwise take places among the coordinates that are kept.
    one = three()[1]
    alone = Knots(density=0.3).merge([one], [1.0], None, GENERATOR)
    assert error(Knots(density=0.3).merge([one, one], [1.0, 1.0], None, GENERATOR), delta(alone)) <= 1e-6


@pytest.mark.parametrize(("small", "large"), [(1e-6, 1e6), (1e-6, 1.0), (1.0, 1e6)])
def test_badly_scaled_adapters(small: float, large: float) -> None:
    generator = torch.Generator().manual_seed(5)
    factors = [random_factors(generator, 3, 18, 24, small), random_factors(generator, 4, 18, 24, large)]
    merged = Knots(combine="sum").merge([*factors, factors[1]], [1.0, 1.0, -1.0], None, GENERATOR)
    assert error(merged, delta(factors[0])) <= 0.01 * (1 if small / large < 1e-9 else 1e-3)
    scaled = [Factors(one.A, one.B, one.scaling * 1e6) for one in three()]
    expected = 1e6 * delta(Knots().merge(three(), [1.0, 1.0, 1.0], None, GENERATOR))
    assert error(Knots().merge(scaled, [1.0, 1.0, 1.0], None, GENERATOR), expected) <= 1e-6


def test_zero_deltas_stay_zero() -> None:
    fresh = Factors(torch.ones(2, 6), torch.zeros(5, 2))
    merged = Knots().merge([fresh, fresh], [1.0, 1.0], None, GENERATOR)
    assert torch.equal(merged.delta(), torch.zeros(5, 6))
    assert torch.equal(Knots().merge([three()[0]], [0.0], None, GENERATOR).delta(), torch.zeros(24, 18))


@pytest.mark.parametrize("density", [0.0, 1.5, -0.1, float("nan")])
def test_wrong_hyperparameters(density: float) -> None:
    with pytest.raises(InputError, match=rf"density: must be in \(0, 1\] \(got {density}\)"):
        Knots(density=density)
