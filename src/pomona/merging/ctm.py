"""Compress all adapters into one small space, then merge them there (CTM).

Axes: R rank, I input features, O output features; P and Q the ranks of all B and of all A together; T adapters; L and M the
compressed sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.cores import joint_cores, taking_part
from pomona.merging.parameters import check_choice, check_share
from pomona.merging.subspace import Combine, combined

_GROWTH = 1e-6  # relative growth of the captured energy below which the iteration ends
_MOST_ITERATIONS = 100


@merge_methods.register("ctm")
@dataclass(frozen=True)
class Ctm(MergeMethod):
    """Project all deltas on the pair of subspaces of a rank that captures most of all of them, and merge there (CTM).

    `M_k = w_k s_k U_B^T B_k A_k V_A` are the cores between the joint bases, as in `core_space`. The subspaces are those of the
    Tucker-2 decomposition of the stacked `X_k = M_k / ||M_k|| (beta ||M_k|| + (1 - beta) mean_j ||M_j||)` at the rank, by HOSVD and
    then HOOI: orthonormal `U_0` [P, rank] and `U_1` [Q, rank]. The deltas themselves, `C_k = U_0^T M_k U_1`, are merged by TIES or
    as a sum, and lifted back. So the result has the rank without a truncation after the merge.

    arXiv 2606.03723. Deviations: the paper multiplies the result by one factor (0.75); here each adapter has a weight instead.
    DARE-TIES is not offered in the compressed space. Adapters without an update are not counted.

    Without `rank` it is the largest R_k. The loss of a rank is measured against the merge without compression.

    Args:
        combine: `ties`, or `sum`.
        density: share of the entries that TIES keeps, in (0, 1]; without effect on `sum`.
        beta: how much an adapter's norm counts in the choice of the subspaces, in [0, 1]; at 0 all adapters count the same.
    """

    identity: ClassVar[Mapping[str, object] | None] = {"density": 1.0}

    combine: Combine = "ties"
    density: float = 0.25
    beta: float = 0.25

    def __post_init__(self) -> None:
        check_choice("combine", self.combine, Combine)
        check_share("density", self.density)
        check_share("beta", self.beta, zero=True)

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`."""
        factors, weights = taking_part(factors, weights)
        cores = joint_cores(factors, weights)
        stack_TPQ = torch.stack(cores.parts)
        norms_T = torch.linalg.matrix_norm(stack_TPQ)
        target_T = self.beta * norms_T + (1 - self.beta) * norms_T.mean()
        X_TPQ = stack_TPQ * (target_T / norms_T.clamp(min=torch.finfo(norms_T.dtype).tiny))[:, None, None]

        def merged(limit: int) -> Float[Tensor, "P Q"]:
            U_PL, U_QM = tucker2(X_TPQ, limit)
            return U_PL @ combined(list(U_PL.T @ stack_TPQ @ U_QM), self.combine, self.density) @ U_QM.T

        most, whole = max(one.rank for one in factors) if rank is None else rank, max(stack_TPQ.shape[1:])
        if most >= whole:
            return cores.lifted(merged(whole), most).factors()
        return cores.lifted_instead(merged(most), most, merged(whole))


def tucker2(X_TPQ: Float[Tensor, "T P Q"], rank: int) -> tuple[Float[Tensor, "P L"], Float[Tensor, "Q M"]]:
    """Orthonormal U and V of at most `rank` columns that capture most of all X_t: the largest `sum_t ||U^T X_t V||_F^2`.

    Higher-order orthogonal iteration (De Lathauwer et al. 2000), from the leading singular vectors of both unfoldings, until a
    step captures less than 1e-6 more.
    """
    U_PL, V_QM = _leading(X_TPQ, rank), _leading(X_TPQ.mT, rank)
    captured = 0.0
    for _ in range(_MOST_ITERATIONS):
        U_PL = _leading(X_TPQ @ V_QM, rank)
        V_QM = _leading((U_PL.T @ X_TPQ).mT, rank)
        before, captured = captured, float((U_PL.T @ X_TPQ @ V_QM).square().sum())
        if captured - before <= _GROWTH * captured:
            break
    return U_PL, V_QM


def _leading(X_TPQ: Float[Tensor, "T P Q"], rank: int) -> Float[Tensor, "P L"]:
    """The leading left singular vectors of `[X_1 X_2 ...]`; all of them span every X_t."""
    return torch.linalg.svd(torch.cat(list(X_TPQ), dim=1), full_matrices=False).U[:, :rank]
