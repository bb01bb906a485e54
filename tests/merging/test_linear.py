from __future__ import annotations

import math

import pytest
import torch
from tests.adapters.builders import random_factors

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging import Linear

GENERATOR = torch.Generator()


def test_cross_terms() -> None:
    # Orthogonal unit factors: delta* is the identity, and the sum of factors is all ones: two cross terms.
    one = Factors(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0], [0.0]]))
    two = Factors(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0], [1.0]]))
    assert torch.equal(Linear().merge([one, two], [1.0, 1.0], None, GENERATOR).delta(), torch.ones(2, 2))


def test_weights_scalings_and_sign() -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = random_factors(generator, 3, scaling=2.0), random_factors(generator, 3, scaling=0.5)
    merged = Linear().merge([one, two], [0.5, -3.0], None, GENERATOR)
    torch.testing.assert_close(merged.A, one.A - math.sqrt(1.5) * two.A)
    torch.testing.assert_close(merged.B, one.B + math.sqrt(1.5) * two.B)
    assert merged.scaling == 1.0


def test_a_single_adapter_of_weight_minus_one_is_negated() -> None:
    one = random_factors(torch.Generator().manual_seed(0), 3, scaling=0.7)
    torch.testing.assert_close(Linear().merge([one], [-1.0], None, GENERATOR).delta(), -one.delta())


def test_unequal_ranks_and_a_smaller_rank_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    three, four = random_factors(generator, 3), random_factors(generator, 4)
    with pytest.raises(InputError, match=r"equal ranks \(got \[3, 4\]\)"):
        Linear().merge([three, four], [1.0, 1.0], None, GENERATOR)
    with pytest.raises(InputError, match=r"gives rank 3 \(got 2\)"):
        Linear().merge([three, three], [1.0, 1.0], 2, GENERATOR)
