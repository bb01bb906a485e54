from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import random_factors
from tests.merging.dense import GENERATOR, delta, error, exact
from torch import Tensor

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging import merge_methods
from pomona.merging.cart import Cart

SIDES = pytest.mark.parametrize(("out_features", "in_features"), [(24, 18), (18, 24)])


def three(out_features: int = 24, in_features: int = 18) -> list[Factors]:
    generator = torch.Generator().manual_seed(3)
    return [random_factors(generator, rank, in_features, out_features, scale) for rank, scale in ((3, 0.5), (5, 2.0), (2, 1.0))]


def dense_cart(factors: list[Factors], weights: list[float], count: int, strength: float) -> Tensor:
    parts = [weight * delta(one) for one, weight in zip(factors, weights, strict=True)]
    merged = mean = torch.stack(parts).mean(0)
    for part in parts:
        U, S, V_T = torch.linalg.svd(part - mean, full_matrices=False)
        merged = merged + strength * U[:, :count] @ S[:count].diag() @ V_T[:count]
    return merged


@SIDES
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, -1.5, 2.0]])
@pytest.mark.parametrize(("share", "strength", "count"), [(0.04, 1.0, 1), (0.17, 0.5, 3)])
def test_equals_the_dense_definition(
    out_features: int, in_features: int, weights: list[float], share: float, strength: float, count: int
) -> None:
    factors = three(out_features, in_features)
    merged = Cart(share=share, strength=strength).merge(factors, weights, None, GENERATOR)
    assert merged.rank == 10
    assert error(merged, dense_cart(factors, weights, count, strength)) <= 1e-6


def test_it_is_the_mean_for_two_adapters_and_where_nothing_is_truncated() -> None:
    factors = three()
    assert error(Cart().merge(factors[:2], [1.0, 1.0], None, GENERATOR), exact(factors[:2], [0.5, 0.5])) <= 1e-6
    assert error(Cart(share=1.0).merge(factors, [1.0] * 3, None, GENERATOR), exact(factors, [1 / 3] * 3)) <= 1e-6


@pytest.mark.parametrize("parameters", [{"share": 0}, {"share": 1.5}, {"strength": -1}, {"strength": float("nan")}])
def test_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(parameters))):
        merge_methods.create("cart", parameters)
