"""Merge in the small joint space of all adapters' factors (Core Space).

Axes: R rank, I input features, O output features; P and Q the ranks of all B and of all A together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from pomona.adapters.factors import Factors
from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.content_order import content_order
from pomona.merging.cores import joint_cores
from pomona.merging.parameters import check_choice, check_share
from pomona.merging.subspace import Combine, combined


@merge_methods.register("core_space")
@dataclass(frozen=True)
class CoreSpace(MergeMethod):
    """Write every delta as a small core between joint bases of all B and all A, and merge the cores, by TIES or as a sum.

    `U_B` [O, P] are the left singular vectors of `[B_1 B_2 ...]`, `V_A` [I, Q] the right ones of `[A_1; A_2; ...]`; the cores
    `M_k = w_k s_k U_B^T B_k A_k V_A` [P, Q] represent the deltas without loss. The cores are merged, and `U_B M V_A^T` is the
    result.

    Panariello et al. 2025, Accurate and Efficient Low-Rank Model Merging in Core Space, arXiv 2509.17786. As in the paper,
    the bases come from the factors without scalings and weights, so TIES depends on the division of an adapter's norm between A and
    B. The paper's other combinations need no core space here: TSV and isotropic merging are equal in all orthonormal bases that
    span the deltas, so methods `tsv` and `iso_c` already give the result for the cores. Deviations: null directions of the stacked
    factors (from adapters that share directions) are dropped, while the paper keeps all sum_k R_k; TIES trims each module
    separately and uses a weight for each adapter.

    The signs of the bases have no effect. If singular values of the stacked factors repeat, any rotation of their vectors is a
    valid basis, and TIES depends on LAPACK's choice: the same adapters, in any order, give the same result, but another version of
    the library may give another result.

    Without `rank` the result has the full rank, min(P, Q); with `rank` it is the best approximation of this rank.

    Args:
        combine: `ties`, or `sum`, which gives delta*.
        density: share of the cores' entries that TIES keeps, in (0, 1]; without effect on `sum`.
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
        cores = joint_cores([factors[k] for k in order], [weights[k] for k in order])
        return cores.lifted(combined(cores.parts, self.combine, self.density), rank).factors()
