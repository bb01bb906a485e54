from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.adapters.builders import random_factors
from tests.merging.dense import GENERATOR, error, exact
from torch import Tensor

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging import merge_methods
from pomona.merging.robust_merge import RobustMerge


def three() -> list[Factors]:
    generator = torch.Generator().manual_seed(3)
    return [random_factors(generator, 3, 18, 24, scale) for scale in (0.5, 2.0, 1.0)]


def trimmed(matrix: np.ndarray, density: float) -> np.ndarray:
    flat = np.abs(matrix).ravel()
    least = np.sort(flat)[::-1][int(density * flat.size) - 1]
    return np.where(np.abs(matrix) >= least, matrix, 0.0)


def entry_by_entry(factors: list[Factors], weights: list[float], density: float) -> Tensor:
    A = [one.A.double().numpy() for one in factors]
    B = [weight * one.scaling * one.B.double().numpy() for one, weight in zip(factors, weights, strict=True)]
    pA, pB = [trimmed(one, density) for one in A], [trimmed(one, density) for one in B]
    scale = np.array([np.abs(a).sum(1) / np.abs(p).sum(1) for a, p in zip(A, pA, strict=True)])
    scale /= scale.sum(0)
    return torch.from_numpy(np.sum([p * c for p, c in zip(pB, scale, strict=True)], axis=0) @ np.sum(pA, axis=0))


@pytest.mark.parametrize("density", [0.2, 0.55, 1.0])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, -1.5, 2.0]])
def test_equals_the_definition(density: float, weights: list[float]) -> None:
    merged = RobustMerge(density=density).merge(three(), weights, None, GENERATOR)
    assert merged.rank == 3
    assert error(merged, entry_by_entry(three(), weights, density)) <= 1e-6


def test_by_hand() -> None:
    # Half of A is trimmed: row 1 loses 1 of 4 (scale 4/3), row 2 loses nothing that counts.
    one = Factors(torch.tensor([[3.0, 1.0]]), torch.tensor([[5.0], [2.0]]))
    two = Factors(torch.tensor([[2.0, 2.0]]), torch.tensor([[1.0], [-4.0]]), scaling=2.0)
    merged = RobustMerge(density=0.5).merge([one, two], [1.0, 1.0], None, GENERATOR)
    # A = [3, 0] + [2, 0]; scales 4/3 and 4/2, of 10/3 in all: 0.4 and 0.6; B = 0.4 [5, 0] + 0.6 [0, -8].
    torch.testing.assert_close(merged.A, torch.tensor([[5.0, 0.0]]))
    torch.testing.assert_close(merged.B, torch.tensor([[2.0], [-4.8]]))


def test_a_direction_without_kept_entries_counts_for_nothing() -> None:
    weak = Factors(torch.tensor([[9.0, 8.0], [0.1, 0.1]]), torch.ones(3, 2))
    merged = RobustMerge(density=0.5).merge([weak], [1.0], None, GENERATOR)
    assert torch.isfinite(merged.A).all()
    assert merged.B[:, 1].count_nonzero() == 0


def test_an_adapter_alone_keeps_its_update_at_density_one_only() -> None:
    one = three()[1]
    assert error(RobustMerge(density=1.0).merge([one], [-2.0], None, GENERATOR), exact([one], [-2.0])) <= 1e-6
    assert error(RobustMerge().merge([one], [-2.0], None, GENERATOR), exact([one], [-2.0])) > 0.3


def test_refused() -> None:
    other = Factors(torch.ones(2, 18), torch.ones(24, 2))
    with pytest.raises(InputError, match="equal ranks"):
        RobustMerge().merge([three()[0], other], [1.0, 1.0], None, GENERATOR)
    with pytest.raises(InputError, match="always gives rank 3"):
        RobustMerge().merge(three(), [1.0] * 3, 2, GENERATOR)
    with pytest.raises(InputError, match="density"):
        merge_methods.create("robust_merge", {"density": 0.0})
