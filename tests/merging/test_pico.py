from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import random_factors
from tests.merging.dense import GENERATOR, delta, error, exact
from torch import Tensor

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging import merge_methods
from pomona.merging.pico import Pico

SIDES = pytest.mark.parametrize(("out_features", "in_features"), [(24, 18), (18, 24)])


def three(out_features: int = 24, in_features: int = 18) -> list[Factors]:
    generator = torch.Generator().manual_seed(3)
    return [random_factors(generator, rank, in_features, out_features, scale) for rank, scale in ((3, 0.5), (5, 2.0), (2, 1.0))]


def dense_pico(factors: list[Factors], weights: list[float]) -> Tensor:
    """From the definition, with the calibrated B of each adapter."""
    B = [weight * one.scaling * one.B.double() for one, weight in zip(factors, weights, strict=True)]
    U, S, _ = torch.linalg.svd(torch.cat(B, dim=1), full_matrices=False)
    a = 1 / (1 + (len(B) - 1) * S**2 / (S**2).sum())
    calibrated = [one + U @ torch.diag(a - 1) @ U.T @ one for one in B]
    merged = torch.stack([b @ one.A.double() for b, one in zip(calibrated, factors, strict=True)]).sum(0)
    norms = [weight * delta(one).norm() for one, weight in zip(factors, weights, strict=True)]
    return merged * torch.stack(norms).abs().mean() / merged.norm()


@SIDES
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, -1.5, 2.0]])
def test_equals_the_dense_definition(out_features: int, in_features: int, weights: list[float]) -> None:
    factors = three(out_features, in_features)
    merged = Pico().merge(factors, weights, None, GENERATOR)
    assert merged.rank == 10
    assert error(merged, dense_pico(factors, weights)) <= 1e-6


def test_by_hand() -> None:
    # Three quarters of the energy of B lies in the direction that both share: it is weakened to 4/7, the other to 4/5.
    one = Factors(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0**0.5 / 2**0.5], [0.0]]))
    two = Factors(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[3.0**0.5 / 2**0.5, 0.0], [0.0, 1.0]]))
    merged = Pico().merge([one, two], [1.0, 1.0], None, GENERATOR)
    before = torch.tensor([[1.5**0.5 * 4 / 7, 1.5**0.5 * 4 / 7], [4 / 5, 0.0]])
    expected = before * (1.5**0.5 + 2.5**0.5) / 2 / before.norm()
    torch.testing.assert_close(merged.delta(), expected, rtol=1e-6, atol=1e-6)


def test_ties_without_trimming_is_the_mean_where_the_signs_agree() -> None:
    one, other = three()[1], three()[1]
    other = Factors(other.A, other.B, 3 * other.scaling)  # the same update, three times as strong
    merged = Pico(combine="ties", density=1.0).merge([one, other], [1.0, 1.0], None, GENERATOR)
    assert error(merged, dense_pico([one, other], [1.0, 1.0])) <= 1e-6


def test_opposite_adapters_cancel_and_a_small_one_keeps_its_directions() -> None:
    one, two, _ = three()
    assert float(Pico().merge([one, one], [1.0, -1.0], None, GENERATOR).delta().norm()) <= 1e-6 * float(one.delta().norm())
    small = Factors(two.A, two.B, 1e-9)
    assert Pico().merge([one, small], [1.0, 1.0], None, GENERATOR).rank == 8
    assert error(Pico().merge([two], [-2.0], None, GENERATOR), exact([two], [-2.0])) <= 1e-6


@pytest.mark.parametrize("parameters", [{"density": 0.0}, {"density": 2}])
def test_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(parameters))):
        merge_methods.create("pico", parameters)
