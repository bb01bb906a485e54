"""Merge by common directions and each adapter's own leading one, all of equal strength (Iso-CTS).

Axes: R rank, I input features, O output features; P and Q the ranks of all B and of all A together; K kept directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factored_svd import Spectrum
from pomona.adapters.factors import Factors
from pomona.adapters.truncated import Loss, Truncated
from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.cores import joint_cores, taking_part
from pomona.merging.subspace import FP32_ROUNDING, count_nonzero
from pomona.merging.tsv import orthogonalised


@merge_methods.register("iso_cts")
@dataclass(frozen=True)
class IsoCts(MergeMethod):
    """Keep the leading directions of the sum and the leading direction that each delta adds to them, all equally strong (Iso-CTS).

    With T adapters and K directions: the first K - T singular directions of `delta* = sum_k w_k delta_k` are common, with left
    vectors U_c; each adapter adds the first singular direction of `w_k delta_k - U_c U_c^T w_k delta_k`. Both sides' K vectors are
    orthogonalised as in `tsv`, and every direction gets the mean of the K singular values.

    Marczak et al. 2025, No Task Left Behind, arXiv 2502.04959, Algorithm 2. Deviations, as in `iso_c`: K is a rank, not min(O, I),
    and values within the rounding of fp32 factors are dropped, because their directions are arbitrary. The paper gives each adapter
    a fifth of all directions together; here each has one, and the adapters with the largest come first if K is at most T; one
    direction at least is common. An adapter that is given twice adds the same direction twice, and the result loses one.

    Without `rank` K is the largest R_k. The loss of a rank is measured against the result of the largest K, min(P, Q); with fewer
    and stronger directions, it may exceed the norm of that result.
    """

    identity: ClassVar[Mapping[str, object] | None] = None
    repeats: ClassVar[bool] = False

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`."""
        factors, weights = taking_part(factors, weights)
        cores = joint_cores(factors, weights)
        most = min(cores.parts[0].shape)
        K = min(max(one.rank for one in factors) if rank is None else rank, most)
        kept, full = (_isotropic(cores.parts, count) for count in (K, most))
        lifted = Spectrum(cores.U_OP @ kept.U_OK, kept.S_K, cores.V_IQ @ kept.V_IK)
        full_PQ, kept_PQ = (one.U_OK * one.S_K @ one.V_IK.T for one in (full, kept))
        loss = Loss(float((full_PQ - kept_PQ).square().sum()), float(full_PQ.square().sum()))
        return Truncated(*lifted.balanced(), loss=loss)


def _isotropic(parts: Sequence[Float[Tensor, "P Q"]], count: int) -> Spectrum:
    """The directions within the cores, at most `count`, each with the mean of their singular values."""
    U_PK, S_K, V_T = torch.linalg.svd(torch.stack(list(parts)).sum(dim=0), full_matrices=False)
    nonzero = count_nonzero(S_K, FP32_ROUNDING)
    common = min(max(1, count - len(parts)), nonzero) if float(S_K[0]) > FP32_ROUNDING * _largest(parts) else 0
    U, S, V = [U_PK[:, :common]], [S_K[:common]], [V_T[:common].T]
    own = [torch.linalg.svd(part - U[0] @ (U[0].T @ part), full_matrices=False) for part in parts]
    own = [one for one, part in zip(own, parts, strict=True) if float(one.S[0]) > FP32_ROUNDING * float(part.norm())]
    for one in sorted(own, key=lambda one: -float(one.S[0]))[: count - common]:
        U.append(one.U[:, :1])
        S.append(one.S[:1])
        V.append(one.Vh[:1].T)
    found_S = torch.cat(S)
    if len(found_S) == 0:
        return Spectrum(U_PK[:, :1], torch.zeros_like(S_K[:1]), V_T[:1].T)
    return Spectrum(orthogonalised(torch.cat(U, dim=1)), found_S.mean().expand(len(found_S)), orthogonalised(torch.cat(V, dim=1)))


def _largest(parts: Sequence[Float[Tensor, "P Q"]]) -> float:
    return max(float(part.norm()) for part in parts)
