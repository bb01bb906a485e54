"""Merge after the directions of output that the adapters share are weakened (Pico).

Axes: R rank, I input features, O output features; P and Q the ranks of all B and of all A together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from pomona.adapters.factors import Factors
from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.cores import Cores, joint_basis, taking_part
from pomona.merging.parameters import check_choice, check_share
from pomona.merging.subspace import FP32_ROUNDING, Combine, combined


@merge_methods.register("pico")
@dataclass(frozen=True)
class Pico(MergeMethod):
    """Weaken the output directions that carry much of all adapters' B, merge by TIES or as a sum, and restore the norm.

    With T adapters and `[w_1 s_1 B_1, w_2 s_2 B_2, ...] = U diag(S) W^T`, `share_j = S_j^2 / sum_i S_i^2` and
    `a_j = 1 / (1 + (T - 1) share_j)`, the deltas become `U diag(a) U^T w_k s_k B_k A_k`. They are merged in the basis U, and the
    result is scaled to the mean of the norms `||w_k s_k B_k A_k||_F`.

    arXiv 2604.16826. As in the paper, the basis is that of the B factors, so the result depends on the division of an adapter's
    norm between A and B. Deviations: TIES acts on the coordinates in the two joint bases, not on the entries of O x I matrices;
    each adapter has a weight, which counts in the basis; adapters without an update are not counted in T or in the mean. An
    adapter that is given twice does not merge to a multiple of itself: its strongest directions count as shared.

    Without `rank` the result has the full rank, min(P, Q); with `rank` it is the best approximation of this rank.

    Args:
        combine: `sum` or `ties`.
        density: share of the coordinates that TIES keeps, in (0, 1]; without effect on `sum`.
    """

    identity: ClassVar[Mapping[str, object] | None] = {}
    repeats: ClassVar[bool] = False

    combine: Combine = "sum"
    density: float = 0.2

    def __post_init__(self) -> None:
        check_choice("combine", self.combine, Combine)
        check_share("density", self.density)

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`."""
        factors, weights = taking_part(factors, weights)
        ranks = [one.rank for one in factors]
        scaled = [weight * one.scaling * one.B.double() for one, weight in zip(factors, weights, strict=True)]
        U_OP, B_PR = joint_basis(torch.cat(scaled, dim=1))
        V_IQ, A_QR = joint_basis(torch.cat([one.A.double() for one in factors], dim=0).T)
        parts = [B @ A.T for B, A in zip(B_PR.split(ranks, dim=1), A_QR.split(ranks, dim=1), strict=True)]
        squares_P = B_PR.square().sum(dim=1)
        share_P = squares_P / squares_P.sum().clamp(min=torch.finfo(squares_P.dtype).tiny)
        a_P = 1 / (1 + (len(parts) - 1) * share_P)
        merged_PQ = combined([a_P[:, None] * part for part in parts], self.combine, self.density)
        target = sum(float(part.norm()) for part in parts) / len(parts)
        found = float(merged_PQ.norm())
        restored = target / found if found > FP32_ROUNDING * target else 0.0  # the rounding of what cancels is no direction
        return Cores(U_OP, parts, V_IQ).lifted(merged_PQ * restored, rank).factors()
