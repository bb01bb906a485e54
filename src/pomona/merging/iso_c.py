"""Merge with equal singular values for all directions (Iso-C), in factored space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factored_svd import Spectrum, factored_svd, stacked
from pomona.adapters.factors import Factors
from pomona.adapters.truncated import Loss, Truncated
from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.subspace import FP32_ROUNDING, count_nonzero


@merge_methods.register("iso_c")
@dataclass(frozen=True)
class IsoC(MergeMethod):
    """Replace the singular values of the weighted sum of the deltas by their mean (isotropic merging in the common subspace).

    `delta* = U diag(S) V^T`; the result is `mean(S) U V^T`. A single adapter does not merge to itself.

    Marczak et al. 2025, No Task Left Behind, arXiv 2502.04959, Algorithm 1, equations 7 and 8. Deviation: the paper takes
    the mean over all min(O, I) values of a full-rank matrix. A merge of LoRA adapters has at most R = sum_k R_k non-zero values;
    the zeros would divide the result by min(O, I) / R, and their arbitrary vectors would be raised to the mean. Here the mean is
    over the non-zero values, and only their directions are kept. A value is zero if it is below fp32's rounding (1.2e-7) relative
    to the largest: the factors have fp32 precision at best, so smaller values are rounding errors, which must not be raised to the
    mean.

    Without `rank` all non-zero directions are kept, at most R. With `rank` the leading directions are kept, and the mean is over
    them, as in the paper's variant with a part of the directions (Iso-CTS): the svd merge of that rank, made isotropic.
    The loss of a rank is measured against the result with all directions; with fewer and stronger directions, it may exceed the
    norm of that result.
    """

    identity: ClassVar[Mapping[str, object] | None] = None

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`."""
        U_OK, S_K, V_IK, rest, _ = factored_svd(*stacked(factors, weights), rank)
        keep = max(1, count_nonzero(S_K, FP32_ROUNDING))
        mean = S_K[:keep].mean()
        result = Spectrum(U_OK[:, :keep], mean.expand(keep), V_IK[:, :keep]).balanced()
        every = S_K if rest is None else torch.cat([S_K, rest])
        return Truncated(*result, loss=_loss(every, keep, float(mean)))


def _loss(S_R: Float[Tensor, " R"], keep: int, mean: float) -> Loss:
    """The loss against the result with all non-zero directions if `keep` directions have the singular value `mean`."""
    count = max(1, count_nonzero(S_R, FP32_ROUNDING))
    full_mean = float(S_R[:count].mean())
    whole_squared = count * full_mean**2
    return Loss(keep * (mean - full_mean) ** 2 + (count - keep) * full_mean**2, whole_squared)
