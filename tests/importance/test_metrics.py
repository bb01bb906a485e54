from __future__ import annotations

import pytest
import torch

from pomona.adapters.factors import Factors
from pomona.importance import Magnitude, ModuleStatistics, Wanda

A_RI = torch.tensor([[1.0, -2.0, 0.0], [-0.5, 4.0, 3.0]])
B_OR = torch.tensor([[1.0, -1.0], [0.0, 2.0], [-3.0, 0.5], [0.25, -8.0]])
STATISTICS = ModuleStatistics(input_norm_I=torch.tensor([2.0, 0.5, 10.0]), hidden_norm_R=torch.tensor([4.0, 0.25]))


def test_wanda_by_hand() -> None:
    scores_A, scores_B = Wanda().scores(Factors(A_RI, B_OR), STATISTICS)
    assert scores_A.tolist() == [[2.0, 1.0, 0.0], [1.0, 2.0, 30.0]]
    assert scores_B.tolist() == [[4.0, 0.25], [0.0, 0.5], [12.0, 0.125], [1.0, 2.0]]


def test_wanda_is_the_norm_of_what_an_entry_contributes() -> None:
    generator = torch.Generator().manual_seed(3)
    factors = Factors(torch.randn(2, 5, generator=generator).double(), torch.randn(4, 2, generator=generator).double())
    x_TI = torch.randn(11, 5, generator=generator).double()
    statistics = ModuleStatistics(x_TI.norm(dim=0), (x_TI @ factors.A.T).norm(dim=0))
    scores_A, scores_B = Wanda().scores(factors, statistics)
    for r in range(2):
        for i in range(5):
            assert scores_A[r, i].item() == pytest.approx((factors.A[r, i] * x_TI[:, i]).norm().item(), rel=1e-12)
        for o in range(4):
            contribution = factors.B[o, r] * (x_TI @ factors.A.T)[:, r]
            assert scores_B[o, r].item() == pytest.approx(contribution.norm().item(), rel=1e-12)


def test_magnitude_does_not_read_the_norms() -> None:
    scores_A, scores_B = Magnitude().scores(Factors(A_RI, B_OR), STATISTICS)
    assert torch.equal(scores_A, A_RI.abs())
    assert torch.equal(scores_B, B_OR.abs())


@pytest.mark.parametrize(("inputs", "hidden"), [(4, 2), (3, 1), (1, 2), (3, 4)])
def test_wanda_refuses_norms_that_do_not_fit(inputs: int, hidden: int) -> None:
    with pytest.raises(ValueError, match="do not fit factors with 3 input features and rank 2"):
        Wanda().scores(Factors(A_RI, B_OR), ModuleStatistics(torch.ones(inputs), torch.ones(hidden)))
