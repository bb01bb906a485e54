from __future__ import annotations

import itertools

import pytest
import torch
from tests.adapters.builders import random_factors
from tests.merging.dense import GENERATOR, delta, error, exact, nonzero, ties
from torch import Tensor

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging.base import MergeMethod
from pomona.merging.core_space import CoreSpace
from pomona.merging.cores import joint_basis
from pomona.merging.iso_c import IsoC
from pomona.merging.tsv import Tsv

SIDES = pytest.mark.parametrize(("out_features", "in_features"), [(24, 18), (18, 24)])


def three(out_features: int = 24, in_features: int = 18) -> list[Factors]:
    generator = torch.Generator().manual_seed(4)
    return [random_factors(generator, rank, in_features, out_features, scale) for rank, scale in ((3, 0.5), (5, 2.0), (2, 1.0))]


def dense_core_space(factors: list[Factors], weights: list[float], density: float) -> Tensor:
    """From the dense deltas, projected onto the singular vectors of the stacked factors."""
    U, S_B, _ = torch.linalg.svd(torch.cat([one.B.double() for one in factors], dim=1), full_matrices=False)
    _, S_A, V_T = torch.linalg.svd(torch.cat([one.A.double() for one in factors], dim=0), full_matrices=False)
    U, V_T = U[:, : nonzero(S_B)], V_T[: nonzero(S_A)]
    return U @ ties([weight * U.T @ delta(one) @ V_T.T for one, weight in zip(factors, weights, strict=True)], density) @ V_T


@SIDES
@pytest.mark.parametrize("density", [0.2, 0.55, 1.0])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, -1.5, 2.0]])
def test_equals_the_dense_definition(out_features: int, in_features: int, density: float, weights: list[float]) -> None:
    factors = three(out_features, in_features)
    merged = CoreSpace(density=density).merge(factors, weights, None, GENERATOR)
    assert error(merged, dense_core_space(factors, weights, density)) <= 1e-6
    assert merged.rank == 10


def test_by_hand() -> None:
    # Both bases are the unit vectors, as the stacked factors are diagonal with the strengths 3, 2, 1: the cores are the deltas.
    one = Factors(torch.diag(torch.tensor([3.0, 2.0, 1.0])), torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 0, 1]]))
    two = Factors(torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.0], [0.0], [-2.0]]))
    basis, _ = joint_basis(torch.cat([one.A, two.A]).double().T)
    torch.testing.assert_close(basis.abs(), torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    swapped = Factors(torch.diag(torch.tensor([3.0, 2.0, 1.0])), torch.diag(torch.tensor([3.0, 2.0, 1.0])))
    against = Factors(torch.tensor([[0.0, 4.0, 0.0]]), torch.tensor([[0.0], [-2.0], [0.0]]))
    # Cores diag(9, 4, 1) and -8 at (2, 2): -8 outvotes 4, and nobody speaks against 9 and 1.
    merged = CoreSpace(density=1.0).merge([swapped, against], [1.0, 1.0], None, GENERATOR)
    torch.testing.assert_close(merged.delta(), torch.diag(torch.tensor([9.0, -8.0, 1.0])), rtol=1e-6, atol=1e-6)
    # Of nine entries the two largest stay: 1 is trimmed.
    merged = CoreSpace(density=0.25).merge([swapped, against], [1.0, 1.0], None, GENERATOR)
    torch.testing.assert_close(merged.delta(), torch.diag(torch.tensor([9.0, -8.0, 0.0])), rtol=1e-6, atol=1e-6)


@SIDES
def test_sum_is_the_weighted_sum(out_features: int, in_features: int) -> None:
    factors = three(out_features, in_features)
    merged = CoreSpace(combine="sum").merge(factors, [0.5, -1.0, 3.0], None, GENERATOR)
    assert error(merged, exact(factors, [0.5, -1.0, 3.0])) <= 1e-6


@pytest.mark.parametrize("method", [Tsv(), IsoC()])
def test_what_is_invariant_to_the_bases_needs_no_core_space(method: MergeMethod) -> None:
    factors, weights = three(), [1.0, 0.5, -2.0]
    U, _ = joint_basis(torch.cat([one.B.double() for one in factors], dim=1))
    V, _ = joint_basis(torch.cat([one.A.double() for one in factors], dim=0).T)
    cores = [Factors(one.A.double() @ V, U.T @ one.B.double(), one.scaling) for one in factors]
    lifted = U @ delta(method.merge(cores, weights, None, GENERATOR)) @ V.T
    assert error(method.merge(factors, weights, None, GENERATOR), lifted) <= 1e-6


@pytest.mark.parametrize("scale", [1e-16, 1.0, 1e16])
def test_joint_basis_is_orthonormal_and_spans_the_columns_of_every_adapter(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    large = scale * torch.randn(20, 4, generator=generator, dtype=torch.float64)
    stacked = torch.cat([small, large, large @ torch.ones(4, 2, dtype=torch.float64)], dim=1)
    basis, coordinates = joint_basis(stacked)
    torch.testing.assert_close(basis @ coordinates, stacked, rtol=0, atol=1e-12 * max(1, scale))
    assert basis.shape == (20, 7)
    torch.testing.assert_close(basis.T @ basis, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-12)
    for part in (small, large):
        assert float((basis @ (basis.T @ part) - part).norm() / part.norm()) <= 1e-12


@pytest.mark.parametrize("combine", ["ties", "sum"])
def test_rank_is_the_best_approximation_of_the_whole_result(combine: str) -> None:
    factors, weights = three(), [1.0, 0.5, -1.0]
    method = CoreSpace(combine=combine, density=0.5)  # pyright: ignore[reportArgumentType]
    U, S, V_T = torch.linalg.svd(delta(method.merge(factors, weights, None, GENERATOR)), full_matrices=False)
    for rank in (1, 4, 30):
        merged = method.merge(factors, weights, rank, GENERATOR)
        assert merged.rank == min(rank, 10)
        assert error(merged, U[:, :rank] @ S[:rank].diag() @ V_T[:rank]) <= 1e-6


def test_rank_never_exceeds_the_sides() -> None:
    generator = torch.Generator().manual_seed(1)
    factors = [random_factors(generator, 6, 4, 20) for _ in range(3)]
    merged = CoreSpace(density=0.5).merge(factors, [1.0, 1.0, 1.0], None, GENERATOR)
    assert merged.rank == 4
    assert error(merged, dense_core_space(factors, [1.0, 1.0, 1.0], 0.5)) <= 1e-6


def test_permuting_adapters_changes_nothing() -> None:
    factors, weights = [*three(), three()[0]], [0.3, 1.0, -0.8, 0.3]
    expected = CoreSpace().merge(factors, weights, None, GENERATOR).delta()
    for order in itertools.permutations(range(4)):
        merged = CoreSpace().merge([factors[k] for k in order], [weights[k] for k in order], None, GENERATOR)
        assert torch.equal(merged.delta(), expected)


def test_one_adapter_at_density_one_is_itself() -> None:
    one = three()[1]
    assert error(CoreSpace(density=1.0).merge([one], [1.0], None, GENERATOR), delta(one)) <= 1e-6


def test_repeated_adapters_trim_as_one_does() -> None:
    # Null directions of the doubled stacks would otherwise take places among the entries of the cores.
    one = three()[1]
    alone = CoreSpace(density=0.3).merge([one], [2.0], None, GENERATOR)
    merged = CoreSpace(density=0.3).merge([one, one], [1.0, 3.0], None, GENERATOR)
    assert merged.rank == 5
    assert error(merged, delta(alone)) <= 1e-6


def test_rank_one_adapters_keep_an_entry() -> None:
    generator = torch.Generator().manual_seed(0)
    one = random_factors(generator, 1)
    assert error(CoreSpace().merge([one], [1.0], None, GENERATOR), delta(one)) <= 1e-6


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_badly_scaled_factors(scale: float) -> None:
    # The norm sits in A for one adapter and in B for the other; the deltas are of one size.
    generator = torch.Generator().manual_seed(5)
    one, two = random_factors(generator, 3, 18, 24), random_factors(generator, 4, 18, 24)
    factors = [Factors(one.A * scale, one.B / scale), Factors(two.A / scale, two.B * scale)]
    merged = CoreSpace(combine="sum").merge(factors, [1.0, 1.0], None, GENERATOR)
    assert error(merged, exact(factors, [1.0, 1.0])) <= 1e-6


def test_zero_deltas_stay_zero() -> None:
    fresh = Factors(torch.ones(2, 6), torch.zeros(5, 2))
    assert torch.equal(CoreSpace().merge([fresh, fresh], [1.0, 1.0], None, GENERATOR).delta(), torch.zeros(5, 6))
    other = random_factors(torch.Generator().manual_seed(0), 2, 6, 5)
    merged = CoreSpace(combine="sum").merge([fresh, other], [1.0, 1.0], None, GENERATOR)
    assert error(merged, delta(other)) <= 1e-6
    assert torch.equal(CoreSpace().merge([other], [0.0], None, GENERATOR).delta(), torch.zeros(5, 6))


def test_wrong_hyperparameters() -> None:
    with pytest.raises(InputError, match=r"density: must be in \(0, 1\] \(got 0\)"):
        CoreSpace(density=0)
