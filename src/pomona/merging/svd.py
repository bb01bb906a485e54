"""Merge by truncated singular value decomposition, in factored space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from pomona.adapters.factored_svd import best_approximation
from pomona.adapters.factors import Factors
from pomona.merging.base import MergeMethod, merge_methods


@merge_methods.register("svd")
@dataclass(frozen=True)
class Svd(MergeMethod):
    """The best approximation of the weighted sum of the deltas at a given rank (Eckart-Young).

    With `B = [B_1 ... B_n]` [O, R] and `A = [w_1 s_1 A_1; ...]` [R, I], R = sum_k R_k: `B = Q_B T_B`, `A^T = Q_A T_A` (QR),
    `T_B T_A^T = U diag(S) V^T`, and the result is `B = Q_B U sqrt(S)`, `A = sqrt(S) V^T Q_A^T`, truncated to the leading `rank`
    values. The dense O x I matrix is never built: O((O + I) R^2 + R^3). R x R matrices are in fp64, and all others too if columns
    are nearly parallel or badly scaled; the error is within 1e-4 of the optimal error
    (`pomona.adapters.factored_svd.best_approximation`).

    The rank is `min(rank, O, I, R)`. Without `rank` it is the largest R_k (as in PEFT), so that the merge is as small as its
    largest part; a `rank` of R or more is exact. Weights may be negative.
    """

    identity: ClassVar[Mapping[str, object] | None] = {}

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`."""
        return best_approximation(factors, weights, max(one.rank for one in factors) if rank is None else rank)
