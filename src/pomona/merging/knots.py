"""Merge in a common basis of the adapters' outputs (KnOTS), in factored space.

Axes: R rank, I input features, O output features, K the joint rank of all adapters' outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factored_svd import factored_svd, orthonormal
from pomona.adapters.factors import Factors
from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.content_order import content_order
from pomona.merging.parameters import check_choice, check_share
from pomona.merging.subspace import Combine, combined, count_nonzero

# A singular value of the joint outputs counts as 0 below this share, times sum_k R_k, of the largest.
_NULL = 4 * torch.finfo(torch.float64).eps


@merge_methods.register("knots")
@dataclass(frozen=True)
class Knots(MergeMethod):
    """Write every delta in one orthonormal basis of outputs, and merge the coordinates there, by TIES or as a sum (KnOTS).

    `[delta_1 | delta_2 ...] = U diag(S) [V_1^T | V_2^T ...]` with `delta_k = s_k B_k A_k`; merged are the coordinates
    `w_k diag(S) V_k^T = w_k U^T delta_k`, each [K, I], and `U` lifts the result back. The decomposition is made from
    `[B_1 B_2 ...] = Q_B T_B` and `A_k^T = Q_k T_k`: only the small `T_B blockdiag(s_k T_k^T)` is decomposed, and no O x I matrix
    is ever built.

    Stoica et al. 2024, Model Merging with SVD to Tie the Knots, arXiv 2410.19735. The paper's text merges V_k, its published
    settings, and Pomona, diag(S) V_k^T. Signs and the mean are the same in both, but trimming V_k would keep as many entries for
    the smallest singular value as for the largest. Deviations: entries are trimmed in each module (the paper: over all modules
    together); the cutoff of S is relative to the largest value (the paper: 1e-5), so that the scale does not matter; each adapter
    has a weight (the paper: one factor for the sum).

    The signs of the basis have no effect. If singular values repeat, any rotation of their vectors is a valid basis, and TIES
    depends on LAPACK's choice: the same adapters, in any order, give the same result, but another version of the library may give
    another result.

    Without `rank` the result has the full rank, at most min(sum_k R_k, O, I); with `rank` it is the best approximation of this
    rank.

    Args:
        combine: `ties`, or `sum`, which gives delta*.
        density: share of the coordinates that TIES keeps, in (0, 1]; without effect on `sum`.
    """

    combine: Combine = "ties"
    density: float = 0.2

    identity: ClassVar[Mapping[str, object] | None] = {"density": 1.0}

    def __post_init__(self) -> None:
        check_choice("combine", self.combine, Combine)
        check_share("density", self.density)

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`."""
        order = content_order(factors, weights)
        U_OK, parts = shared_coordinates([factors[k] for k in order])
        merged_KI = combined([weights[k] * part for k, part in zip(order, parts, strict=True)], self.combine, self.density)
        return factored_svd(merged_KI, U_OK, rank).factors()


def shared_coordinates(factors: Sequence[Factors]) -> tuple[Float[Tensor, "O K"], list[Float[Tensor, "K I"]]]:
    """`U` and every adapter's `diag(S) V_k^T`, in fp64; `U @ part_k` is adapter k's unweighted delta."""
    Q_B, T_B = orthonormal(torch.cat([one.B.double() for one in factors], dim=1))
    bases = [orthonormal(one.A.double().T) for one in factors]
    core = T_B @ torch.block_diag(*[one.scaling * T.T for one, (_, T) in zip(factors, bases, strict=True)])
    U, S, W_T = torch.linalg.svd(core, full_matrices=False)
    keep = max(1, count_nonzero(S, _NULL * sum(one.rank for one in factors)))
    columns = (S[:keep, None] * W_T[:keep]).split([Q.shape[1] for Q, _ in bases], dim=1)
    return Q_B @ U[:, :keep], [part @ Q.T for part, (Q, _) in zip(columns, bases, strict=True)]
