"""The cores represent the deltas exactly, and adapters without an update are left out."""

from __future__ import annotations

import torch
from tests.adapters.builders import random_factors
from tests.merging.dense import delta

from pomona.adapters import Factors
from pomona.merging.cores import joint_cores, taking_part


def test_cores_between_the_bases_are_the_weighted_deltas() -> None:
    generator = torch.Generator().manual_seed(3)
    factors = [random_factors(generator, rank, 18, 24, scale) for rank, scale in ((3, 0.5), (5, 2.0))]
    cores = joint_cores(factors, [0.5, -2.0])
    for one, weight, part in zip(factors, [0.5, -2.0], cores.parts, strict=True):
        torch.testing.assert_close(cores.U_OP @ part @ cores.V_IQ.T, weight * delta(one), rtol=0, atol=1e-12)
    torch.testing.assert_close(cores.U_OP.T @ cores.U_OP, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-12)


def test_adapters_without_an_update_are_left_out_unless_there_is_no_other() -> None:
    one = Factors(torch.ones(2, 6), torch.ones(5, 2))
    fresh, cleared = Factors(torch.ones(2, 6), torch.zeros(5, 2)), Factors(torch.zeros(2, 6), torch.ones(5, 2))
    assert taking_part([fresh, one, cleared], [1.0, 2.0, 3.0]) == ([one], [2.0])
    assert len(taking_part([fresh, cleared], [1.0, 1.0])[0]) == 1
