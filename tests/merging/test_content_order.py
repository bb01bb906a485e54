from __future__ import annotations

from itertools import permutations

import torch
from tests.adapters.builders import random_factors

from pomona.adapters import Factors
from pomona.merging.content_order import content_order, streams


def test_any_permutation_is_brought_to_one_order() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = [random_factors(generator, rank) for rank in (2, 4, 4)]
    factors.append(Factors(factors[0].A, factors[0].B, 3.0))  # the same but for its scaling
    factors.append(factors[0])  # the same but for its weight
    weights = [1.0, -0.5, 2.0, 1.0, 0.25]
    orders = set()
    for places in permutations(range(5)):
        order = content_order([factors[place] for place in places], [weights[place] for place in places])
        orders.add(tuple(places[place] for place in order))
    assert len(orders) == 1


def test_factors_of_equal_sums_are_distinguished() -> None:
    one, other = Factors(torch.tensor([[1.0, 0.0]]), torch.ones(2, 1)), Factors(torch.tensor([[0.0, 1.0]]), torch.ones(2, 1))
    first = content_order([one, other], [1.0, 1.0])
    assert content_order([other, one], [1.0, 1.0]) == first[::-1]


def test_half_precision_has_the_place_of_its_fp32_copy() -> None:
    generator = torch.Generator().manual_seed(1)
    half = [random_factors(generator, 4, dtype=torch.bfloat16) for _ in range(6)]
    wide = [Factors(one.A.float(), one.B.float()) for one in half]
    assert content_order(half, [1.0] * 6) == content_order(wide, [1.0] * 6)


def test_streams_differ_from_each_other_and_follow_the_seed() -> None:
    def draws(seed: int) -> list[float]:
        return [float(torch.rand(1, generator=one)) for one in streams(torch.Generator().manual_seed(seed), 4)]

    assert len(set(draws(0))) == 4
    assert draws(0) == draws(0)
    assert not set(draws(0)) & set(draws(1))
