from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import random_factors

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging import Concat

GENERATOR = torch.Generator()


def test_by_hand() -> None:
    one = Factors(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [0.0]]), 2.0)
    two = Factors(torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0], [1.0]]), 0.5)
    merged = Concat().merge([one, two], [1.0, -2.0], None, GENERATOR)
    assert torch.equal(merged.A, torch.tensor([[2.0, 4.0], [-3.0, 1.0]]))
    assert torch.equal(merged.B, torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    assert merged.scaling == 1.0


def test_exact_for_badly_scaled_adapters() -> None:
    generator = torch.Generator().manual_seed(3)
    small, large = random_factors(generator, 3, scaling=1e-6), random_factors(generator, 5, scaling=1e6)
    merged = Concat().merge([small, large], [1.0, 1.0], None, GENERATOR)
    for columns, one in ((slice(0, 3), small), (slice(3, 8), large)):
        own = merged.B[:, columns].double() @ merged.A[columns].double()
        assert (own - one.delta(torch.float64)).norm() <= 1e-6 * one.delta(torch.float64).norm()


def test_rank_below_the_sum_is_refused() -> None:
    factors = [random_factors(torch.Generator().manual_seed(seed), 3) for seed in (0, 1)]
    assert Concat().merge(factors, [1.0, 1.0], 6, GENERATOR).rank == 6
    with pytest.raises(InputError, match=r"rank: concat gives rank 6, not a smaller rank \(got 5\)\. Use method svd"):
        Concat().merge(factors, [1.0, 1.0], 5, GENERATOR)
