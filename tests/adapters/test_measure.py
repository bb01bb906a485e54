from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.builders import Q0, V0, random_adapter, random_factors

from pomona.adapters import Adapter, Factors, read_adapter, write_adapter
from pomona.adapters.measure import Measured, count_entries, delta_norm, describe_adapter, effective_rank


def test_norm_by_hand() -> None:
    # delta = -2 * [[3, 0], [4, 0]]: norm 2 * 5
    assert delta_norm(Factors(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0], [4.0]]), -2.0)) == pytest.approx(10.0, rel=1e-12)


@pytest.mark.parametrize("rank", [0, 1, 5, 30])
def test_norm_equals_the_dense_one(rank: int) -> None:
    factors = random_factors(torch.Generator().manual_seed(rank), rank, scaling=0.7)
    assert delta_norm(factors) == pytest.approx(float(factors.delta(torch.float64).norm()), rel=1e-9)


@given(
    rank=st.integers(0, 16),
    seed=st.integers(0, 99),
    exponents=st.lists(st.integers(-6, 6), min_size=16, max_size=16),
    scaling=st.floats(-3, 3).filter(lambda one: one == 0 or abs(one) > 1e-100),  # below, float64 itself runs out of digits
)
@settings(max_examples=60, deadline=None)
def test_singular_values_equal_the_dense_ones(rank: int, seed: int, exponents: list[int], scaling: float) -> None:
    """Whatever the sizes of the rows of A and of the columns of B; and zeros where the delta's rank is less."""
    factors = random_factors(torch.Generator().manual_seed(seed), rank, scaling=scaling)
    scale_R = torch.tensor([10.0**exponent for exponent in exponents[:rank]])
    factors = Factors(factors.A * scale_R[:, None], factors.B / scale_R, scaling)
    expected = torch.linalg.svdvals(factors.delta(torch.float64))
    found = Measured(factors).singular_values().flip(0)
    assert len(found) == rank
    kept = min(rank, 12)
    largest = float(expected.max())
    torch.testing.assert_close(found[:kept], expected[:kept], rtol=1e-6, atol=1e-7 * largest)
    assert bool((found[kept:] <= 1e-7 * largest).all())


def test_effective_rank_by_hand() -> None:
    assert effective_rank(torch.tensor([3.0, 3.0, 3.0], dtype=torch.float64)) == pytest.approx(3.0, rel=1e-12)
    assert effective_rank(torch.tensor([5.0, 0.0])) == 1.0
    # p = 3/4, 1/4: exp(-(3/4) ln(3/4) - (1/4) ln(1/4)) = 4 / 3^(3/4)
    assert effective_rank(torch.tensor([1.0, 3.0], dtype=torch.float64)) == pytest.approx(4 / 3**0.75, rel=1e-12)
    assert effective_rank(torch.zeros(4)) == 0.0
    assert effective_rank(torch.zeros(0)) == 0.0


def test_description() -> None:
    # diag(3, 1), so the effective rank is 4 / 3^(3/4); times 2: norm 2 sqrt(10)
    one = Factors(torch.eye(2), torch.tensor([[3.0, 0.0], [0.0, 1.0]]), 2.0)
    two = Factors(torch.tensor([[0.0, 0.0]]).bfloat16(), torch.tensor([[1.0], [1.0]]))
    description = describe_adapter(Adapter({Q0: one, V0: two}, "base", embeddings=frozenset({V0})))
    assert description["base_model"] == "base"
    assert description["total"] == {
        "modules": 2,
        "parameters": 12,
        "padding": 0,
        "ranks": [1, 2],
        "dtypes": ["float32", "bfloat16"],
        "delta_norm": pytest.approx(2 * math.sqrt(10)),
        "mean_effective_rank": pytest.approx(4 / 3**0.75),  # of the one delta that is not zero
        "sparsity": 6 / 12,
    }
    modules = description["modules"]
    assert isinstance(modules, list)
    assert modules[0] == {
        "module": Q0,
        "kind": "linear",
        "out_features": 2,
        "in_features": 2,
        "rank": 2,
        "padding": 0,
        "scaling": 2.0,
        "delta_norm": pytest.approx(2 * math.sqrt(10)),
        "effective_rank": pytest.approx(4 / 3**0.75),
        "sparsity_A": 0.5,
        "sparsity_B": 0.5,
        "dtype": "float32",
    }
    second = (modules[1]["kind"], modules[1]["dtype"], modules[1]["delta_norm"], modules[1]["effective_rank"])
    assert second == ("embedding", "bfloat16/float32", 0.0, 0.0)


def test_description_of_nothing() -> None:
    total = describe_adapter(Adapter({}))["total"]
    assert total == {
        "modules": 0,
        "parameters": 0,
        "padding": 0,
        "ranks": [],
        "dtypes": [],
        "delta_norm": 0.0,
        "mean_effective_rank": None,
        "sparsity": 0.0,
    }


def test_fifty_megabytes_take_no_time(tmp_path: Path) -> None:
    """In the terms of the machine at this moment: rank times the entries is the arithmetic; what is beyond that is overhead."""
    names = [f"model.layers.{layer}.self_attn.{side}_proj" for layer in range(32) for side in "qv"]
    block = random_adapter(0, modules=["q"], rank=24, in_features=4096, out_features=4096)["q"]
    write_adapter(Adapter(dict.fromkeys(names, block)), tmp_path / "a")
    assert (tmp_path / "a" / "adapter_model.safetensors").stat().st_size > 50e6
    adapter = read_adapter(tmp_path / "a")

    def seconds(work: object) -> float:
        assert callable(work)
        started = time.process_time()
        work()
        return time.process_time() - started

    def arithmetic() -> None:
        for _ in range(2 * len(names)):
            wide = block.A.double()
            _ = wide @ wide.T

    arithmetic()
    ratio = min(seconds(lambda: describe_adapter(adapter)) / seconds(arithmetic) for _ in range(2))
    assert ratio < 10, f"{ratio:.1f} times the arithmetic, with {os.cpu_count()} cores"


def test_padding_is_distinguished_from_zeros_of_the_adapter(tmp_path: Path) -> None:
    """Q0 has rank 2 and is padded to 3; a row of zeros without its column of zeros is no padding, nor the other way round."""
    one = Factors(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    two = Factors(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]]), torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]))
    adapter = Adapter({Q0: one, V0: two})
    write_adapter(adapter, tmp_path / "a")
    counted = count_entries(adapter)
    assert counted == (3 * 4 * 2, 4, 3 + 1 + 1 + 3)
    assert counted.sparsity == 8 / 20
    described = describe_adapter(read_adapter(tmp_path / "a"))
    total, modules = described["total"], described["modules"]
    assert isinstance(total, dict)
    assert isinstance(modules, list)
    assert (total["parameters"], total["padding"], total["sparsity"]) == (24, 4, 8 / 20)
    assert [(one["rank"], one["padding"], one["sparsity_A"], one["sparsity_B"]) for one in modules] == [
        (3, 1, 3 / 4, 1 / 4),
        (3, 0, 1 / 6, 3 / 6),
    ]
    assert count_entries(read_adapter(tmp_path / "a")) == counted


def test_a_module_of_zeros_is_all_padding() -> None:
    counted = count_entries(Adapter({Q0: Factors(torch.zeros(1, 3), torch.zeros(2, 1))}))
    assert counted == (5, 5, 0)
    assert counted.sparsity == 0.0
    assert count_entries(Adapter({})) == (0, 0, 0)


def test_exact_zeros_are_counted_and_nothing_else() -> None:
    tiny = Factors(torch.tensor([[0.0, -0.0, 1e-30]]), torch.tensor([[2.0], [-0.0]]))
    assert count_entries(Adapter({Q0: tiny})) == (5, 0, 3)
