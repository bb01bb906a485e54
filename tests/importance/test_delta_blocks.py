"""The dense update in blocks: the blocks themselves, and the two functions that read it through them."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.importance.memory import peak_bytes

from pomona.adapters import factors as adapter_factors
from pomona.adapters.factors import Factors
from pomona.importance import DeltaSensitivity, ModuleStatistics, mean_update_size


def _factors(outputs: int, inputs: int, rank: int, seed: int = 0, zeros: float = 0.0, scaling: float = 1.0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rank, inputs), (outputs, rank))
    A, B = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    for one in (A, B):
        one[torch.rand(one.shape, generator=generator) < zeros] = 0.0
    return Factors(A, B, scaling)


def _norms(factors: Factors, seed: int = 0) -> ModuleStatistics:
    generator = torch.Generator().manual_seed(seed + 1)
    input_norm_I, hidden_norm_R = (torch.rand(n, generator=generator).double() for n in (factors.in_features, factors.rank))
    return ModuleStatistics(input_norm_I, hidden_norm_R)


def _by_autograd(factors: Factors, input_norm_I: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """|dS/dA| and |dS/dB| by differentiating the dense update."""
    A, B = (one.detach().clone().requires_grad_() for one in (factors.A, factors.B))
    ((factors.scaling * B @ A).abs() * input_norm_I).sum().backward()
    assert A.grad is not None
    assert B.grad is not None
    return A.grad.abs(), B.grad.abs()


def _entries(count: int) -> mock._patch[int]:
    return mock.patch.object(adapter_factors, "_BLOCK_ENTRIES", count)


@pytest.mark.parametrize(
    ("entries", "expected"), [(1, [1] * 5), (13, [1] * 5), (14, [2, 2, 1]), (34, [4, 1]), (35, [5]), (999, [5])]
)
def test_blocks_are_the_rows_of_the_update_in_order(entries: int, expected: list[int]) -> None:
    factors = _factors(5, 7, 3, scaling=-0.5)
    with _entries(entries):
        blocks = list(factors.delta_blocks(torch.float64))
    assert [len(block) for _, block in blocks] == expected
    assert [list(range(5))[rows] for rows, _ in blocks] == [
        list(range(sum(expected[:n]), sum(expected[: n + 1]))) for n in range(len(expected))
    ]
    torch.testing.assert_close(torch.cat([block for _, block in blocks]), factors.delta(torch.float64), rtol=1e-14, atol=1e-14)


@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    seed=st.integers(0, 999),
    zeros=st.sampled_from([0.0, 0.3, 0.8]),
    scaling=st.sampled_from([1.0, 0.25, -2.0]),
    entries=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_delta_sensitivity_is_the_derivative_of_the_updates_size(
    shape: tuple[int, int, int], seed: int, zeros: float, scaling: float, entries: int
) -> None:
    factors = _factors(*shape, seed, zeros, scaling)
    statistics = _norms(factors, seed)
    with _entries(entries):
        found = DeltaSensitivity().scores(factors, statistics)
    for one, other in zip(found, _by_autograd(factors, statistics.input_norm_I), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_factors_are_scored_in_fp32(dtype: torch.dtype) -> None:
    exact = _factors(40, 30, 4)
    narrow = Factors(exact.A.to(dtype), exact.B.to(dtype))
    statistics = _norms(exact)
    narrow_statistics = ModuleStatistics(statistics.input_norm_I.to(dtype), statistics.hidden_norm_R.to(dtype))
    expected = _by_autograd(Factors(narrow.A.double(), narrow.B.double()), narrow_statistics.input_norm_I.double())
    for one, other in zip(DeltaSensitivity().scores(narrow, narrow_statistics), expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, rtol=1e-6, atol=1e-6 * float(other.max()))
    wide = DeltaSensitivity().scores(exact, ModuleStatistics(statistics.input_norm_I.float(), statistics.hidden_norm_R.float()))
    assert [one.dtype for one in wide] == [torch.float64, torch.float64]


def test_where_one_factor_is_zero_the_update_has_no_derivative() -> None:
    factors = _factors(5, 7, 3)
    for pair in (Factors(torch.zeros_like(factors.A), factors.B), Factors(factors.A, torch.zeros_like(factors.B))):
        assert not any(scores.any() for scores in DeltaSensitivity().scores(pair, _norms(factors)))


@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    seed=st.integers(0, 999),
    scaling=st.sampled_from([1.0, 0.25, -2.0]),
    entries=st.integers(1, 40),
)
@settings(max_examples=40, deadline=None)
def test_mean_update_size_is_the_mean_weighted_entry(shape: tuple[int, int, int], seed: int, scaling: float, entries: int) -> None:
    outputs, inputs, rank = shape
    factors = _factors(outputs, inputs, rank, seed, 0.3, scaling)
    input_norm_I = _norms(factors, seed).input_norm_I
    A, B, norm = factors.A.tolist(), factors.B.tolist(), input_norm_I.tolist()
    total = 0.0
    for o in range(outputs):
        for i in range(inputs):
            total += abs(scaling * sum(B[o][r] * A[r][i] for r in range(rank))) * norm[i]
    with _entries(entries):
        assert mean_update_size(factors, input_norm_I) == pytest.approx(total / (outputs * inputs), rel=1e-12, abs=1e-14)


def test_mean_update_size_by_hand_in_any_dtype() -> None:
    # B A = [[2, -4], [-1, 2]], weighted by [3, 0.5]: 6 + 2 + 3 + 1 = 12, over 4 entries.
    A, B = torch.tensor([[1.0, -2.0]]), torch.tensor([[2.0], [-1.0]])
    norm = torch.tensor([3.0, 0.5])
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        assert mean_update_size(Factors(A.to(dtype), B.to(dtype)), norm) == 3.0
        assert mean_update_size(Factors(A.to(dtype), B, 0.5), norm.to(dtype)) == 1.5
    assert mean_update_size(Factors(A.requires_grad_(), B), norm) == 3.0
    with pytest.raises(ValueError, match=r"norms of shape \(3,\) do not fit factors with 2 input features"):
        mean_update_size(Factors(A, B), torch.ones(3))


def _peaks(size: int) -> tuple[int, int]:
    """Bytes that the two functions hold at once, on factors of rank 8 in fp32."""
    generator = torch.Generator().manual_seed(0)
    factors = Factors(torch.randn(8, size, generator=generator), torch.randn(size, 8, generator=generator))
    statistics = ModuleStatistics(torch.rand(size, generator=generator), torch.rand(8, generator=generator))
    known = (factors.A, factors.B, statistics.input_norm_I, statistics.hidden_norm_R)
    return (
        peak_bytes(lambda: DeltaSensitivity().scores(factors, statistics), known),
        peak_bytes(lambda: mean_update_size(factors, statistics.input_norm_I), known),
    )


def test_no_dense_matrix_is_ever_held() -> None:
    # O x I bytes would be a mask of one byte an entry; two blocks and the scores are far less.
    assert max(_peaks(4096)) < 4096 * 4096 // 4


def test_the_meter_sees_a_dense_matrix() -> None:
    with _entries(512 * 512):
        assert min(_peaks(512)) >= 512 * 512 * 4
