from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pomona.adapters import Factors
from pomona.adapters import factored_svd as room
from pomona.adapters.factored_svd import best_approximation, concatenated, factored_svd, orthonormal, stacked


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def householder_only(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the calls of Householder's QR."""
    calls: list[int] = []
    qr = torch.linalg.qr

    def counted(X: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(X.shape[1])
        return qr(X)

    monkeypatch.setattr(torch.linalg, "qr", counted)
    return calls


def test_stacked_by_hand() -> None:
    one = Factors(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0], [5.0]]), 2.0)
    two = Factors(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), 0.5)
    A, B = stacked([one, two], [1.0, -4.0])
    assert A.tolist() == [[2.0, 4.0], [0.0, -2.0], [-2.0, 0.0]]
    assert B.tolist() == [[3.0, 1.0, 0.0], [4.0, 0.0, 1.0], [5.0, 1.0, 1.0]]
    assert A.dtype == B.dtype == torch.float64


def test_a_half_precision_factor_is_scaled_in_the_result_s_dtype() -> None:
    one = Factors(torch.tensor([[1.0, 3.0]], dtype=torch.bfloat16), torch.ones(1, 1, dtype=torch.bfloat16), 1.0 / 3.0)
    A, _ = concatenated([one], [1.0], torch.float32)
    assert A.tolist() == [[pytest.approx(1 / 3, rel=1e-7), 1.0]]  # in bf16 it would be 0.333984375


@pytest.mark.parametrize(("rows", "columns"), [(40, 6), (6, 6), (4, 9), (7, 1)])
def test_orthonormal_columns_that_give_the_matrix_back(rows: int, columns: int) -> None:
    X = draw(1, rows, columns)
    Q, T = orthonormal(X)
    assert Q.shape == (rows, min(rows, columns))
    assert (Q @ T - X).norm() <= 1e-12 * X.norm()
    assert (Q.T @ Q - torch.eye(Q.shape[1], dtype=torch.float64)).abs().max() <= 1e-10


def test_well_conditioned_columns_need_no_householder_whatever_their_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = householder_only(monkeypatch)
    X = draw(1, 50, 8) * torch.logspace(-6, 6, 8, dtype=torch.float64)
    Q, T = orthonormal(X)
    assert calls == []
    assert (Q.T @ Q - torch.eye(8, dtype=torch.float64)).abs().max() <= 1e-12
    assert ((Q @ T - X).norm(dim=0) <= 1e-13 * X.norm(dim=0)).all()  # each column at its own scale


@pytest.mark.parametrize("nearness", [0.0, 1e-12, 1e-7])
def test_dependent_columns_fall_back_to_householder(monkeypatch: pytest.MonkeyPatch, nearness: float) -> None:
    X = draw(1, 50, 4)
    X[:, 3] = X[:, 0] + nearness * X[:, 1]
    calls = householder_only(monkeypatch)
    Q, T = orthonormal(X)
    assert calls == [4]
    assert (Q.T @ Q - torch.eye(4, dtype=torch.float64)).abs().max() <= 1e-13
    assert (Q @ T - X).norm() <= 1e-13 * X.norm()


def test_columns_of_zeros() -> None:
    X = draw(1, 20, 3)
    X[:, 1] = 0
    Q, T = orthonormal(X)
    assert (Q @ T - X).norm() <= 1e-13 * X.norm()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 24),
    st.one_of(st.none(), st.integers(1, 30)),
    st.integers(0, 3),
    st.booleans(),
)
def test_svd_equals_the_dense_one(
    out_features: int, in_features: int, ranks: int, rank: int | None, seed: int, repeated: bool
) -> None:
    A, B = draw(seed, ranks, in_features), draw(seed + 10, out_features, ranks)
    if repeated and ranks > 1:
        A[-1], B[:, -1] = A[0], B[:, 0]
    spectrum = factored_svd(A, B, rank)
    keep = min(out_features, in_features, ranks, rank or ranks)
    U, S, V_T = torch.linalg.svd(B @ A)
    assert spectrum.U_OK.shape == (out_features, keep)
    assert spectrum.V_IK.shape == (in_features, keep)
    torch.testing.assert_close(spectrum.S_K, S[:keep], rtol=1e-9, atol=1e-9 * float(S[0]))
    best = (U[:, :keep] * S[:keep]) @ V_T[:keep]
    found = (spectrum.U_OK * spectrum.S_K) @ spectrum.V_IK.T
    exact_error, error = (B @ A - best).norm(), (B @ A - found).norm()
    assert error <= exact_error * (1 + 1e-9) + 1e-9 * S[0]


def test_balanced_factors_share_the_singular_values_and_lie_in_one_piece() -> None:
    spectrum = factored_svd(draw(1, 6, 30), draw(2, 20, 6), 4)
    A, B = spectrum.balanced()
    assert A.dtype == B.dtype == torch.float32
    assert A.is_contiguous()
    assert B.is_contiguous()
    for side in (A @ A.T, B.T @ B):
        torch.testing.assert_close(side, torch.diag(spectrum.S_K).float(), rtol=1e-5, atol=1e-5 * float(spectrum.S_K[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bound_on_rounding_is_as_reported(dtype: torch.dtype) -> None:
    """Two unit columns at an angle: L^-1 = [[1, 0], [-c / s, 1 / s]]; its largest column sum times its largest row sum counts."""
    c, s = 0.6, 0.8
    X = torch.tensor([[1.0, c], [0.0, s], [0.0, 0.0], [0.0, 0.0]], dtype=dtype)
    bound = torch.finfo(dtype).eps * math.sqrt(4) / 4 * max(1 + c / s, 1 / s) * (1 + c) / s
    assert room._gram([X], bound * 1.001) is not None
    assert room._gram([X], bound * 0.999) is None


@pytest.mark.parametrize("size", [1e-21, 1e-17, 1e-14, 1e17, 1e30])
def test_columns_whose_squares_leave_fp32_are_refused(size: float) -> None:
    X = draw(1, 40, 3).float()
    X[:, 1] *= size
    found = room._gram([X], 1e-4)
    assert (found is None) == (size in {1e-21, 1e-17, 1e30})


@pytest.mark.parametrize("kind", ["normal", "positive", "heavy tails"])
@pytest.mark.parametrize("rows", [1024, 14336])
def test_rounding_stays_within_the_bound(kind: str, rows: int) -> None:
    values = draw(1, rows, 32)
    X = {"normal": values, "positive": values.abs(), "heavy tails": values.exp() * values.sign()}[kind].float()
    (to_Q,), (T,) = room._gram([X], 1.0) or pytest.fail("refused")
    worst = torch.linalg.matrix_norm(torch.linalg.inv(T / torch.linalg.vector_norm(X.double(), dim=0)), 2) ** 2
    Q = X.double() @ to_Q
    off = torch.linalg.matrix_norm(Q.T @ Q - torch.eye(32, dtype=torch.float64), 2)
    assert off <= torch.finfo(torch.float32).eps * math.sqrt(rows) / 4 * worst
    assert (Q @ T - X).norm() <= 1e-12 * X.norm()  # whatever the rounding of the Gram matrix


def pair(seed: int, alike: float) -> list[Factors]:
    """Two adapters whose rows of A are random but for a share of the first's in the second's: 1 makes them dependent."""
    one, two = (Factors(draw(seed + k, 4, 30).float(), draw(seed + k + 5, 25, 4).float(), 0.5 + k) for k in range(2))
    mixed = alike * one.A + (1 - alike) * two.A
    return [one, Factors(mixed, two.B, two.scaling)]


@pytest.mark.parametrize("alike", [0.0, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("rank", [1, 3, 8, 40])
def test_best_approximation_is_the_dense_one(alike: float, rank: int) -> None:
    factors, weights = pair(3, alike), [0.7, -1.3]
    delta = torch.stack([weight * one.delta(torch.float64) for weight, one in zip(weights, factors, strict=True)]).sum(0)
    found = best_approximation(factors, weights, rank)
    assert found.rank == min(rank, 8)
    assert (found.A.dtype, found.B.dtype, found.scaling) == (torch.float32, torch.float32, 1.0)
    U, S, V_T = torch.linalg.svd(delta)
    best = (U[:, : found.rank] * S[: found.rank]) @ V_T[: found.rank]
    assert (found.delta(torch.float64) - best).norm() <= 4e-7 * S.norm()


@pytest.mark.parametrize(("alike", "wide"), [(0.0, False), (0.999, True), (1.0, True)])
def test_long_products_are_made_in_fp64_where_columns_are_alike(monkeypatch: pytest.MonkeyPatch, alike: float, wide: bool) -> None:
    calls = wide_calls(monkeypatch)
    best_approximation(pair(3, alike), [1.0, 1.0], 4)
    assert calls == ([4] if wide else [])


def test_long_products_are_made_in_fp64_where_fp32_products_may_be_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = wide_calls(monkeypatch)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        best_approximation(pair(3, 0.0), [1.0, 1.0], 4)
    finally:
        torch.set_float32_matmul_precision(before)
    assert calls == [4]


def wide_calls(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The ranks with which the fp64 decomposition is called."""
    calls: list[int | None] = []
    real = room.factored_svd

    def counted(A: Tensor, B: Tensor, rank: int | None = None) -> room.Spectrum:
        calls.append(rank)
        return real(A, B, rank)

    monkeypatch.setattr(room, "factored_svd", counted)
    return calls
