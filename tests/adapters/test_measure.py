from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import Q0, V0, random_factors

from pomona.adapters import Adapter, Factors
from pomona.adapters.measure import delta_norm, describe_adapter, sparsity


def test_norm_by_hand() -> None:
    # delta = -2 * [[3, 0], [4, 0]]: norm 2 * 5
    assert delta_norm(Factors(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0], [4.0]]), -2.0)) == pytest.approx(10.0, rel=1e-12)


@pytest.mark.parametrize("rank", [0, 1, 5, 30])
def test_norm_equals_the_dense_one(rank: int) -> None:
    factors = random_factors(torch.Generator().manual_seed(rank), rank, scaling=0.7)
    assert delta_norm(factors) == pytest.approx(float(factors.delta(torch.float64).norm()), rel=1e-9)


def test_sparsity_counts_exact_zeros() -> None:
    assert sparsity(torch.tensor([[0.0, -0.0], [1e-30, 2.0]])) == 0.5
    assert sparsity(torch.zeros(0, 3)) == 0.0


def test_description() -> None:
    one = Factors(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0], [4.0]]), 2.0)
    two = Factors(torch.tensor([[0.0, 0.0]]).bfloat16(), torch.tensor([[1.0], [1.0]]))
    description = describe_adapter(Adapter({Q0: one, V0: two}, "base"))
    assert description["base_model"] == "base"
    assert description["total"] == {"modules": 2, "parameters": 8, "delta_norm": pytest.approx(10.0), "sparsity": 3 / 8}
    modules = description["modules"]
    assert isinstance(modules, list)
    assert modules[0] == {
        "module": Q0,
        "out_features": 2,
        "in_features": 2,
        "rank": 1,
        "scaling": 2.0,
        "delta_norm": pytest.approx(10.0),
        "sparsity_A": 0.5,
        "sparsity_B": 0.0,
        "dtype": "float32",
    }
    assert (modules[1]["dtype"], modules[1]["delta_norm"]) == ("bfloat16/float32", 0.0)
