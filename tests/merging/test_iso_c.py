from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import random_factors
from tests.merging.dense import GENERATOR, delta, error, exact, nonzero
from torch import Tensor

from pomona.adapters import Factors
from pomona.merging import Svd
from pomona.merging.iso_c import IsoC

SIDES = pytest.mark.parametrize(("out_features", "in_features"), [(24, 18), (18, 24)])


def three(out_features: int = 24, in_features: int = 18) -> list[Factors]:
    generator = torch.Generator().manual_seed(8)
    return [random_factors(generator, rank, in_features, out_features, scale) for rank, scale in ((3, 0.5), (5, 2.0), (2, 1.0))]


def isotropic(dense: Tensor) -> Tensor:
    U, S, V_T = torch.linalg.svd(dense, full_matrices=False)
    keep = nonzero(S)
    return S[:keep].mean() * U[:, :keep] @ V_T[:keep]


@SIDES
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, -1.5, 2.0]])
def test_equals_the_dense_definition(out_features: int, in_features: int, weights: list[float]) -> None:
    factors = three(out_features, in_features)
    merged = IsoC().merge(factors, weights, None, GENERATOR)
    assert merged.rank == 10
    assert error(merged, isotropic(exact(factors, weights))) <= 1e-6


def test_by_hand() -> None:
    # 5 and -1 on the diagonal: both directions at 3, and the sign stays.
    one = Factors(torch.eye(3)[:2], torch.eye(4)[:, :2] * torch.tensor([5.0, -1.0]))
    merged = IsoC().merge([one], [1.0], None, GENERATOR)
    expected = torch.zeros(4, 3)
    expected[0, 0], expected[1, 1] = 3.0, -3.0
    torch.testing.assert_close(merged.delta(), expected, rtol=1e-6, atol=1e-6)
    # The paper's equation 7 would divide by min(O, I) = 3 values: two thirds of this.
    assert float(torch.linalg.svdvals(merged.delta()).sum()) == pytest.approx(6.0, rel=1e-6)


def test_full_rank_is_the_papers_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = [random_factors(generator, 4, 6, 9), random_factors(generator, 5, 6, 9)]
    U, S, V_T = torch.linalg.svd(exact(factors, [1.0, 1.0]), full_matrices=False)
    assert error(IsoC().merge(factors, [1.0, 1.0], None, GENERATOR), S.mean() * U @ V_T) <= 1e-6


@pytest.mark.parametrize("rank", [1, 4, 30])
def test_at_a_rank_it_is_the_svd_merge_made_isotropic(rank: int) -> None:
    factors, weights = three(), [1.0, 0.5, -1.0]
    merged = IsoC().merge(factors, weights, rank, GENERATOR)
    assert merged.rank == min(rank, 10)
    assert error(merged, isotropic(delta(Svd().merge(factors, weights, rank, GENERATOR)))) <= 2e-6


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_rounding_is_not_raised_to_full_strength(scale: float) -> None:
    one = three()[1]
    one = Factors(one.A, one.B, scale)
    padded = Factors(torch.cat([one.A, one.A[:2]]), torch.cat([one.B, one.B[:, :2]], dim=1), -scale)
    merged = IsoC().merge([one, one, padded], [1.0, 1.0, 0.5], None, GENERATOR)
    assert merged.rank == 5
    assert error(merged, isotropic(exact([one, one, padded], [1.0, 1.0, 0.5]))) <= 1e-6
    # The same adapter in other factors differs by fp32's rounding.
    rescaled = Factors((one.A.double() * 2.0 / 3.0).float(), one.B * 1.5, scale)
    merged = IsoC().merge([one, rescaled], [1.0, 1.0], None, GENERATOR)
    assert merged.rank == 5
    assert error(merged, isotropic(2 * delta(one))) <= 1e-5


def test_repeated_singular_values() -> None:
    # Any rotation of the equal ones gives the same product.
    identity = Factors(torch.eye(6, 8), torch.eye(9, 6))
    merged = IsoC().merge([identity, identity], [1.0, 2.0], None, GENERATOR)
    torch.testing.assert_close(merged.delta(), 3 * identity.delta(), rtol=1e-6, atol=1e-6)


def test_permuting_adapters_changes_nothing() -> None:
    factors, weights = three(), [0.3, 1.0, -0.8]
    expected = delta(IsoC().merge(factors, weights, None, GENERATOR))
    assert error(IsoC().merge(factors[::-1], weights[::-1], None, GENERATOR), expected) <= 1e-6


def test_zero_deltas_stay_zero() -> None:
    fresh = Factors(torch.ones(2, 6), torch.zeros(5, 2))
    assert torch.equal(IsoC().merge([fresh, fresh], [1.0, 1.0], None, GENERATOR).delta(), torch.zeros(5, 6))
    assert torch.equal(IsoC().merge([three()[0]], [0.0], 3, GENERATOR).delta(), torch.zeros(24, 18))
