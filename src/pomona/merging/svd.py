"""Merge by truncated singular value decomposition, in factored space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pomona.adapters.factors import Factors
from pomona.merging.base import MergeMethod, merge_methods


@merge_methods.register("svd")
@dataclass(frozen=True)
class Svd(MergeMethod):
    """The best approximation of the weighted sum of the deltas at a given rank (Eckart-Young).

    With `B = [B_1 ... B_n]` [O, R] and `A = [w_1 s_1 A_1; ...]` [R, I], R = sum_k R_k: `B = Q_B T_B`, `A^T = Q_A T_A` (QR),
    `T_B T_A^T = U diag(S) V^T`, and the result is `B = Q_B U sqrt(S)`, `A = sqrt(S) V^T Q_A^T`, cut to the leading `rank` values.
    The dense O x I matrix is never built: O((O + I) R^2 + R^3). Computed in fp64: badly scaled adapters lose their small values
    in fp32.

    The rank is `min(rank, O, I, R)`. Without `rank` it is the largest R_k (PEFT's default too), so that the merge is as small as
    its largest part; `rank` of R or more is exact. Weights may be negative.
    """

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`."""
        A_RI = torch.cat([one.A.double() * (weight * one.scaling) for one, weight in zip(factors, weights, strict=True)], dim=0)
        B_OR = torch.cat([one.B.double() for one in factors], dim=1)
        B_OK, A_KI = truncated(A_RI, B_OR, max(one.rank for one in factors) if rank is None else rank)
        return Factors(A_KI.float(), B_OK.float())


def truncated(A_RI: torch.Tensor, B_OR: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best approximation of `B A` at a rank, as balanced factors.

    Args:
        A_RI: [R, I], fp64 for full accuracy.
        B_OR: [O, R], the same dtype.
        rank: K >= 1; what is above min(O, I, R) is of no effect.

    Returns:
        (left [O, K], right [K, I]), each with the square roots of the singular values, largest first.
    """
    Q_B, T_B = torch.linalg.qr(B_OR)
    Q_A, T_A = torch.linalg.qr(A_RI.T)
    U, S, V_T = torch.linalg.svd(T_B @ T_A.T, full_matrices=False)
    root_S = S[:rank].sqrt()
    return Q_B @ (U[:, :rank] * root_S), (root_S[:, None] * V_T[:rank]) @ Q_A.T
