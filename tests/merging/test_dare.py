from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import random_factors
from torch import Tensor

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging import merge_methods
from pomona.merging.dare_linear import DareLinear
from pomona.merging.dare_ties import DareTies
from pomona.merging.elementwise import Domain


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def holding(matrix: Tensor) -> Factors:
    """Factors whose delta is this matrix."""
    return Factors(torch.eye(matrix.shape[1]), matrix)


@pytest.mark.parametrize("cls", [DareLinear, DareTies])
@pytest.mark.parametrize("density", [0.25, 0.8])
def test_one_adapter_is_dropped_or_rescaled(cls: type[DareLinear | DareTies], density: float) -> None:
    delta = 1.0 + torch.rand(40, 40, generator=seeded(0))
    merged = cls(density=density).merge([holding(delta)], [3.0], 40, seeded(1)).delta()
    kept = merged.abs() > 0.5
    torch.testing.assert_close(merged, torch.where(kept, 3.0 * delta / density, 0.0), rtol=1e-4, atol=1e-4)
    # 1,600 draws: a standard deviation of at most 0.0108.
    assert abs(float(kept.float().mean()) - density) < 0.04


def test_two_adapters_by_hand() -> None:
    """Entries 1 and 10, halved or doubled by the drop: every sum and every election tells which were kept."""
    factors = [holding(torch.full((20, 20), 1.0)), holding(torch.full((20, 20), -10.0))]
    sums = DareLinear(density=0.5).merge(factors, [1.0, 1.0], 20, seeded(2)).delta()
    assert {round(value) for value in sums.flatten().tolist()} == {0, 2, -20, -18}
    # Elected: both dropped 0, the first alone 2, the second alone or against the first -20.
    elected = DareTies(density=0.5).merge(factors, [1.0, 1.0], 20, seeded(2)).delta()
    expected = torch.where(sums < -1, torch.tensor(-20.0), sums)
    torch.testing.assert_close(elected, expected, rtol=1e-4, atol=1e-3)
    # By weight the first outvotes the second: 30 * 2 against -20.
    outvoted = DareTies(density=0.5).merge(factors, [30.0, 1.0], 20, seeded(2)).delta()
    assert {round(value) for value in outvoted.flatten().tolist()} == {0, 60, -20}


def test_majority_by_frequency() -> None:
    """At density 1 nothing is dropped: 5 against -1 and -2."""
    factors = [holding(torch.tensor([[value]])) for value in (5.0, -1.0, -2.0)]
    for majority, expected in (("total", 5.0), ("frequency", -1.5)):
        merged = DareTies(density=1.0, majority=majority).merge(factors, [1.0] * 3, 1, seeded(3))  # pyright: ignore[reportArgumentType]
        assert float(merged.delta()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("density", [0.3, 0.7])
def test_the_expected_value_is_the_weighted_sum(density: float) -> None:
    generator = seeded(4)
    factors, weights = [random_factors(generator, 2, 6, 8, scaling=2.0) for _ in range(2)], [1.0, -0.5]
    parts = torch.stack([weight * one.delta() for one, weight in zip(factors, weights, strict=True)])
    seeds = 150
    method = DareLinear(density=density)
    mean = torch.stack([method.merge(factors, weights, 6, seeded(seed)).delta() for seed in range(seeds)]).mean(0)
    # Each part is x / d with probability d, so its variance is x^2 (1 / d - 1).
    deviation = (parts.square().sum(0) * (1 / density - 1) / seeds).sqrt()
    assert bool(((mean - parts.sum(0)).abs() <= 4.5 * deviation + 1e-5).all())


@pytest.mark.parametrize("on", ["deltas", "factors"])
def test_density_one_changes_nothing(on: Domain) -> None:
    one = random_factors(seeded(5), 3, scaling=2.0)
    for cls in (DareLinear, DareTies):
        merged = cls(density=1.0, on=on).merge([one], [0.5], None, seeded(6))
        assert (merged.delta() - 0.5 * one.delta()).norm() <= 1e-6 * one.delta().norm()


def test_factors_are_thinned_each_by_itself() -> None:
    """A and B of one adapter: every entry is 0 or its value over the density, times the root of the scaling."""
    A, B = 1.0 + torch.rand(4, 50, generator=seeded(7)), 1.0 + torch.rand(60, 4, generator=seeded(8))
    merged = DareLinear(density=0.5, on="factors").merge([Factors(A, B, 9.0)], [-1.0], None, seeded(9))
    for got, expected in ((merged.A, -3.0 * A / 0.5), (merged.B, 3.0 * B / 0.5)):
        kept = got != 0
        assert 0.3 < float(kept.float().mean()) < 0.7
        torch.testing.assert_close(got[kept], expected[kept], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
def test_a_value_out_of_range_is_one_precise_error(name: str) -> None:
    with pytest.raises(InputError, match=r"density: must be in \(0, 1\] \(got 0\)"):
        merge_methods.create(name, {"density": 0})
    with pytest.raises(InputError, match="no parameter 'rescale'"):
        merge_methods.create(name, {"rescale": True})
