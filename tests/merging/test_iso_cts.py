from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import random_factors
from tests.merging.dense import GENERATOR, delta, error
from torch import Tensor

from pomona.adapters import Factors
from pomona.merging.iso_c import IsoC
from pomona.merging.iso_cts import IsoCts

SIDES = pytest.mark.parametrize(("out_features", "in_features"), [(24, 18), (18, 24)])


def three(out_features: int = 24, in_features: int = 18) -> list[Factors]:
    generator = torch.Generator().manual_seed(8)
    return [random_factors(generator, rank, in_features, out_features, scale) for rank, scale in ((3, 0.5), (5, 2.0), (2, 1.0))]


def nearest_orthonormal(X: Tensor) -> Tensor:
    P, _, Q_T = torch.linalg.svd(X, full_matrices=False)
    return P @ Q_T


def dense_iso_cts(factors: list[Factors], weights: list[float], K: int) -> Tensor:
    parts = [weight * delta(one) for one, weight in zip(factors, weights, strict=True)]
    common = K - len(parts)
    U, S, V_T = torch.linalg.svd(torch.stack(parts).sum(0), full_matrices=False)
    left, values, right = [U[:, :common]], [S[:common]], [V_T[:common].T]
    for part in parts:
        U, S, V_T = torch.linalg.svd(part - left[0] @ left[0].T @ part, full_matrices=False)
        left.append(U[:, :1])
        values.append(S[:1])
        right.append(V_T[:1].T)
    return torch.cat(values).mean() * nearest_orthonormal(torch.cat(left, 1)) @ nearest_orthonormal(torch.cat(right, 1)).T


@SIDES
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, -1.5, 2.0]])
@pytest.mark.parametrize("rank", [None, 4, 7])
def test_equals_the_dense_definition(out_features: int, in_features: int, weights: list[float], rank: int | None) -> None:
    factors = three(out_features, in_features)
    merged = IsoCts().merge(factors, weights, rank, GENERATOR)
    assert merged.rank == (rank or 5)
    assert error(merged, dense_iso_cts(factors, weights, rank or 5)) <= 1e-6


def test_one_adapter_is_iso_c() -> None:
    one = three()[1]
    assert error(IsoCts().merge([one], [-2.0], None, GENERATOR), delta(IsoC().merge([one], [-2.0], None, GENERATOR))) <= 1e-6


def test_below_the_number_of_adapters_one_direction_is_common() -> None:
    factors = three()
    parts = [delta(one) for one in factors]
    U, S, V_T = torch.linalg.svd(torch.stack(parts).sum(0), full_matrices=False)
    assert error(IsoCts().merge(factors, [1.0] * 3, 1, GENERATOR), S[0] * U[:, :1] @ V_T[:1]) <= 1e-6
    strongest = torch.linalg.svd(parts[1] - U[:, :1] @ U[:, :1].T @ parts[1], full_matrices=False)
    left, right = torch.cat([U[:, :1], strongest.U[:, :1]], 1), torch.cat([V_T[:1], strongest.Vh[:1]]).T
    expected = (S[0] + strongest.S[0]) / 2 * nearest_orthonormal(left) @ nearest_orthonormal(right).T
    assert error(IsoCts().merge(factors, [1.0] * 3, 2, GENERATOR), expected) <= 1e-6


def test_opposite_adapters_keep_their_own_directions_only() -> None:
    one = three()[0]
    merged = IsoCts().merge([one, one], [1.0, -1.0], None, GENERATOR)
    assert float(delta(merged).norm()) <= 1e-6 * float(delta(one).norm())
