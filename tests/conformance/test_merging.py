"""What every merge method keeps to, by being registered."""

from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import Q0, Q1, V0, V1, exact_delta, random_adapter

from pomona.adapters import Adapter, Factors
from pomona.merging import merge, merge_methods

METHODS = pytest.mark.parametrize("method", list(merge_methods))


def close(merged: Adapter, expected: Adapter, factor: float = 1.0) -> None:
    assert set(merged) == set(expected)
    for module in merged:
        want = factor * expected[module].delta(torch.float64)
        got = merged[module].delta(torch.float64)
        assert (got - want).norm() <= 2e-6 * want.norm(), module


@METHODS
def test_has_a_one_line_description(method: str) -> None:
    assert merge_methods.describe(method).endswith(".")


@METHODS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_result_is_fp32_with_scaling_one_and_inputs_stay(method: str, dtype: torch.dtype) -> None:
    adapters = [random_adapter(seed, dtype=dtype, scaling=2.0) for seed in (1, 2)]
    before = [adapter.fingerprint() for adapter in adapters]
    merged = merge(adapters, method)
    assert {(one.A.dtype, one.B.dtype, one.scaling) for one in merged.factors.values()} == {(torch.float32, torch.float32, 1.0)}
    assert {(one.out_features, one.in_features) for one in merged.factors.values()} == {(20, 12)}
    assert [adapter.fingerprint() for adapter in adapters] == before
    # The same values in fp32 give the same merge: nothing is computed in half precision.
    wide = [Adapter({m: Factors(a[m].A.float(), a[m].B.float(), a[m].scaling) for m in a}) for a in adapters]
    assert merge(wide, method).fingerprint() == merged.fingerprint()


@METHODS
def test_permuting_adapters_with_their_weights_changes_nothing(method: str) -> None:
    adapters = [random_adapter(seed, scaling=0.5 + seed) for seed in (1, 2, 3)]
    weights = [0.3, 1.0, 0.8]
    close(merge(adapters[::-1], method, weights[::-1]), merge(adapters, method, weights))


@METHODS
@pytest.mark.parametrize("weights", [(1.0, 0.0), (1.0, 0.0, 0.0)])
def test_weights_one_and_zero_give_the_first_delta(method: str, weights: tuple[float, ...]) -> None:
    adapters = [random_adapter(seed, scaling=0.5 + seed) for seed in range(len(weights))]
    close(merge(adapters, method, weights), adapters[0])


@METHODS
def test_one_adapter_is_itself(method: str) -> None:
    adapter = random_adapter(1, scaling=3.0)
    close(merge([adapter], method), adapter)


@METHODS
@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_scaling_all_weights_scales_the_delta(method: str, factor: float) -> None:
    adapters = [random_adapter(seed) for seed in (1, 2)]
    close(merge(adapters, method, [factor, 0.5 * factor]), merge(adapters, method, [1.0, 0.5]), factor)


@METHODS
def test_rank_one_and_rank_above_the_sides(method: str) -> None:
    ones = [random_adapter(seed, rank=1) for seed in (1, 2)]
    assert 1 <= max(one.rank for one in merge(ones, method).factors.values()) <= 2
    wide = [random_adapter(1, rank=9, in_features=3, out_features=5)]
    close(merge(wide, method), wide[0])


@METHODS
def test_module_missing_in_one_adapter(method: str) -> None:
    one, two = random_adapter(1, modules=[Q0, V0]), random_adapter(2, modules=[V0, Q1, V1])
    merged = merge([one, two], method, [0.5, 2.0])
    assert merged.modules == (Q0, V0, Q1, V1)
    for module in (Q0, Q1, V1):
        expected = exact_delta([one, two], [0.5, 2.0], module)
        assert (merged[module].delta(torch.float64) - expected).norm() <= 2e-6 * expected.norm()


@METHODS
def test_zero_delta_stays_zero(method: str) -> None:
    fresh = Adapter({Q0: Factors(torch.ones(2, 6), torch.zeros(5, 2))})
    assert merge([fresh, fresh], method)[Q0].delta().count_nonzero() == 0


@METHODS
def test_same_seed_same_bits(method: str) -> None:
    adapters = [random_adapter(seed) for seed in (1, 2)]
    torch.manual_seed(0)
    first = merge(adapters, method, seed=5).fingerprint()
    torch.manual_seed(1)  # global random state is of no effect
    assert merge(adapters, method, seed=5).fingerprint() == first
