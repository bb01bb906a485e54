"""Factors of dense matrices, against torch's own singular value decomposition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.adapters.convert.truncate import Limits, factor, factor_all
from pomona.errors import InputError


def falling(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Singular values that fall slowly, as those of real updates do."""
    generator = torch.Generator().manual_seed(seed)
    small = min(rows, columns)
    U = torch.linalg.qr(torch.randn(rows, small, generator=generator))[0]
    V = torch.linalg.qr(torch.randn(columns, small, generator=generator))[0]
    return (U / torch.arange(1, small + 1) ** 0.5) @ V.T


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_the_best_of_its_rank(rows: int, columns: int, rank: int, seed: int) -> None:
    delta = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    A, B = factor(delta, Limits(rank, None))
    S = torch.linalg.svdvals(delta.double())
    assert A.shape == (min(rank, len(S)), columns)
    assert B.shape == (rows, len(A))
    lost = float((delta.double() - B.double() @ A.double()).square().sum())
    assert lost == pytest.approx(float(S[rank:].square().sum()), rel=1e-4, abs=1e-9 * float(S.square().sum()))


@pytest.mark.parametrize("shape", [(120, 150), (150, 120)])
def test_the_sketch_is_as_good_as_the_exact_way(shape: tuple[int, int]) -> None:
    delta = falling(*shape)
    best = float(torch.linalg.svdvals(delta.double())[8:].square().sum())
    A, B = factor(delta, Limits(8, None), exact_size=16)
    assert float((delta - B @ A).double().square().sum()) == pytest.approx(best, rel=1e-3)
    again, _ = factor(delta, Limits(8, None), exact_size=16)
    assert torch.equal(A, again)


@pytest.mark.parametrize("exact_size", [16, 512])
def test_the_least_rank_for_an_error(exact_size: int) -> None:
    delta = falling(400, 300)
    S = torch.linalg.svdvals(delta.double())
    shares = (S.square().flip(0).cumsum(0).flip(0) / S.square().sum()).sqrt()  # what is lost at rank 0, 1, 2, ...
    least = int((shares > 0.75).sum())
    assert abs(len(factor(delta, Limits(None, 0.75), exact_size)[0]) - least) <= 1
    assert len(factor(delta, Limits(3, 0.75), exact_size)[0]) == 3


def test_the_error_includes_the_rounding_of_written_factors() -> None:
    delta = torch.randn(20, 2) @ torch.randn(2, 30)
    (factors, exact), (_, rounded) = (
        factor_all([("a", delta)], Limits(2, None), dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    assert exact.error < 1e-6
    assert 1e-4 < rounded.error < 1e-2
    assert rounded.worst_module == "a"
    assert factors["a"].A.norm() == pytest.approx(float(factors["a"].B.norm()), rel=1e-3)  # balanced


def test_zero_differences_are_left_out_and_bad_ones_named() -> None:
    found, lost = factor_all([("a", torch.zeros(3, 4)), ("b", torch.ones(3, 4))], Limits(1, None), torch.float32)
    assert list(found) == ["b"]
    assert math.isclose(lost.error, 0, abs_tol=1e-6)
    with pytest.raises(InputError, match="b: the difference of weights has NaN"):
        factor_all([("b", torch.full((2, 2), math.nan))], Limits(1, None), torch.float32)
