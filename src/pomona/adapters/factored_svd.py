"""Exact linear algebra of a product `B A` in factored space: the dense O x I matrix is never built.

Axes: R rank of the factors, K kept rank, I input features, O output features, N either of the sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.adapters.truncated import Loss, Truncated

# Allowed relative excess of the error of a truncated product over the optimal error, for each side's rounding.
_SLACK_FP32, _SLACK_FP64 = 5e-5, 1e-9


class Spectrum(NamedTuple):
    """A singular value decomposition `U diag(S) V^T`, in fp64, singular values largest first; complete or its leading part.

    Args:
        U_OK: orthonormal columns.
        S_K: >= 0.
        V_IK: orthonormal columns.
        rest: the dropped singular values; None: there are none.
        whole_squared: the sum of the squares of all singular values, if the dropped ones are unknown.
    """

    U_OK: Float[Tensor, "O K"]
    S_K: Float[Tensor, " K"]
    V_IK: Float[Tensor, "I K"]
    rest: Float[Tensor, " _"] | None = None
    whole_squared: float | None = None

    def balanced(self) -> tuple[Float[Tensor, "K I"], Float[Tensor, "O K"]]:
        """`(A, B)` with `B A = U diag(S) V^T` and the square roots of the singular values on either side, in fp32."""
        root_K = self.S_K.sqrt()
        return (self.V_IK * root_K).T.float().contiguous(), (self.U_OK * root_K).float()

    def factors(self) -> Truncated:
        """As `balanced`, with the loss."""
        return Truncated(*self.balanced(), loss=self.loss())

    def loss(self) -> Loss:
        """The loss of the truncation to these triples (Eckart and Young)."""
        kept_squared = float(self.S_K.square().sum())
        if self.whole_squared is not None:
            return Loss(max(0.0, self.whole_squared - kept_squared), self.whole_squared)
        rest = () if self.rest is None else tuple(self.rest.tolist())
        lost_squared = sum(value * value for value in rest)
        return Loss(lost_squared, kept_squared + lost_squared, rest)


def stacked(factors: Sequence[Factors], weights: Sequence[float]) -> tuple[Float[Tensor, "R I"], Float[Tensor, "O R"]]:
    """`A = [w_1 s_1 A_1; ...]` and `B = [B_1 B_2 ...]` in fp64, R = sum_k R_k, so that `B A = sum_k w_k s_k B_k A_k = delta*`."""
    return concatenated(factors, weights, torch.float64)


def concatenated(
    factors: Sequence[Factors], weights: Sequence[float], dtype: torch.dtype
) -> tuple[Float[Tensor, "R I"], Float[Tensor, "O R"]]:
    """As `stacked`, in a chosen dtype."""
    first, R = factors[0], sum(one.rank for one in factors)
    A_RI = torch.empty(R, first.in_features, dtype=dtype, device=first.A.device)
    B_OR = torch.empty(first.out_features, R, dtype=dtype, device=first.A.device)
    row = 0
    for one, weight in zip(factors, weights, strict=True):
        # Converted before scaling, because a product in half precision would be rounded.
        A_RI[row : row + one.rank].copy_(one.A).mul_(weight * one.scaling)
        B_OR[:, row : row + one.rank].copy_(one.B)
        row += one.rank
    return A_RI, B_OR


def orthonormal(X_NR: Float[Tensor, "N R"]) -> tuple[Float[Tensor, "N K"], Float[Tensor, "K R"]]:
    """`X = Q T` with orthonormal columns in Q, K = min(N, R); T is triangular or not.

    Args:
        X_NR: fp64.
    """
    found = _gram([X_NR], _SLACK_FP64)
    if found is None:
        Q_NK, T_KR = torch.linalg.qr(X_NR)
        return Q_NK, T_KR
    (to_Q_RR,), (T_RR,) = found
    return X_NR @ to_Q_RR, T_RR


def factored_svd(A_RI: Float[Tensor, "R I"], B_OR: Float[Tensor, "O R"], rank: int | None = None) -> Spectrum:
    """The leading singular triples of `B A`: O((O + I) R^2 + R^3) instead of O(O I min(O, I)).

    `B = Q_B T_B` and `A^T = Q_A T_A` with orthonormal columns; the core's decomposition `T_B T_A^T = U diag(S) V^T` gives
    `Q_B U`, `S` and `Q_A V`.

    Args:
        A_RI: [R, I], fp64.
        B_OR: [O, R], fp64.
        rank: K >= 1, the number of triples to keep; None or above min(O, I, R): all of them.
    """
    columns_B, columns_A = B_OR, A_RI.T
    found = _gram([columns_B, columns_A], _SLACK_FP64)
    if found is None:
        (columns_B, T_B), (columns_A, T_A) = torch.linalg.qr(columns_B), torch.linalg.qr(columns_A)
        to_Q_B, to_Q_A = (torch.eye(len(T), dtype=T.dtype, device=T.device) for T in (T_B, T_A))
    else:
        (to_Q_B, to_Q_A), (T_B, T_A) = found
    U, S, V_T = torch.linalg.svd(T_B @ T_A.T, full_matrices=False)
    # V's side is multiplied in transposed form, so that A is contiguous.
    V_KI = (V_T[:rank] @ to_Q_A.T) @ columns_A.T
    return Spectrum(columns_B @ (to_Q_B @ U[:, :rank]), S[:rank], V_KI.T, S[len(V_KI) :])


def best_approximation(factors: Sequence[Factors], weights: Sequence[float], rank: int) -> Truncated:
    """The best approximation of `sum_k w_k s_k B_k A_k` at a rank, as balanced fp32 factors with scaling 1 (Eckart-Young).

    As `factored_svd` of the stacked factors; but if their columns are well conditioned, the products with O or I terms are computed
    in fp32, because the result is rounded anyway, and only R x R matrices in fp64. The error exceeds the optimal error by less
    than 1e-4 of it: the effect of rounding on an orthonormal basis is bounded (see `_gram`), and an approximation that is optimal
    in a norm with a relative error d is optimal within d.

    Args:
        factors: one or more.
        weights: w_k.
        rank: K >= 1; a rank above min(O, I, R) has no further effect.

    Returns:
        The factors, with the loss by the truncation.
    """
    A_RI = torch.cat([one.A.to(torch.float32) for one in factors], dim=0)
    B_OR = torch.cat([one.B.to(torch.float32) for one in factors], dim=1)
    found = _gram([B_OR, A_RI.T], _SLACK_FP32) if torch.get_float32_matmul_precision() == "highest" else None
    if found is None:
        return factored_svd(*stacked(factors, weights), rank).factors()
    (to_Q_B, to_Q_A), (T_B, T_A) = found
    shares = [weight * one.scaling for one, weight in zip(factors, weights, strict=True) for _ in range(one.rank)]
    U, S, V_T = torch.linalg.svd(T_B * torch.tensor(shares, dtype=T_B.dtype, device=T_B.device) @ T_A.T, full_matrices=False)
    root_K = S[:rank].sqrt()
    to_B_RK, to_A_KR = to_Q_B @ (U[:, :rank] * root_K), (root_K[:, None] * V_T[:rank]) @ to_Q_A.T
    kept = Spectrum(U[:, :rank], S[:rank], V_T[:rank].T, S[rank:])
    return Truncated(to_A_KR.float() @ A_RI, B_OR @ to_B_RK.float(), loss=kept.loss())


def _gram(sides: Sequence[Float[Tensor, "_ R"]], slack: float) -> tuple[Float[Tensor, "S R R"], Float[Tensor, "S R R"]] | None:
    """`(P, T)` in fp64 with `X = (X P) T` and `X P` orthonormal up to rounding, for each X [N, R] of the sides.

    Columns are scaled to unit norm, and their Gram matrix is factored by Cholesky, `G = L L^T`: `P = L^-T`, `T = L^T`. This is
    one product with N terms, many times as fast as Householder reflections. The error of G is a multiple of `eps sqrt(N)`, eps of
    X's dtype (at most a quarter of it on random, positive and heavy-tailed columns), so the deviation of `X P` from orthonormality
    is `eps sqrt(N) |L^-1|^2 / 4`.

    Returns:
        None if this deviation is above `slack` for one of the sides, if a side has more columns than rows, or if a column is so
        small that products of its entries underflow.
    """
    R = sides[0].shape[1]
    if R == 0 or any(len(X_NR) < R for X_NR in sides):
        return None
    limits = torch.finfo(sides[0].dtype)
    G_SRR = torch.stack([X_NR.T @ X_NR for X_NR in sides]).double()
    squares_SR = G_SRR.diagonal(dim1=1, dim2=2)
    norms_SR = squares_SR.sqrt()
    L_SRR, info_S = torch.linalg.cholesky_ex(G_SRR / (norms_SR[:, :, None] * norms_SR[:, None, :]))
    identity_SRR = torch.eye(R, dtype=L_SRR.dtype, device=L_SRR.device).expand_as(L_SRR)
    inverse_SRR = torch.linalg.solve_triangular(L_SRR, identity_SRR, upper=False)
    sizes_SRR = inverse_SRR.abs()
    # |L^-1|_2^2 <= |L^-1|_1 |L^-1|_inf; NaN, from a column of zeros, fails the comparison.
    worst_S = (sizes_SRR.sum(dim=1).amax(dim=1) * sizes_SRR.sum(dim=2).amax(dim=1)).tolist()
    rounding = all(limits.eps * math.sqrt(len(X)) / 4 * worst <= slack for X, worst in zip(sides, worst_S, strict=True))
    if not rounding or bool(info_S.any()) or float(squares_SR.min()) < 1e8 * limits.tiny:
        return None
    return (inverse_SRR / norms_SR[:, None, :]).mT, L_SRR.mT * norms_SR[:, None, :]
