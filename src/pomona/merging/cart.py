"""Merge by the mean and the adapters' leading differences from it (CART).

Axes: R rank, I input features, O output features, P and Q the ranks of all B and of all A together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from pomona.adapters.factors import Factors
from pomona.errors import InputError
from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.cores import joint_cores, taking_part
from pomona.merging.parameters import check_share


@merge_methods.register("cart")
@dataclass(frozen=True)
class Cart(MergeMethod):
    """The mean of the deltas, plus the leading singular directions of each delta's difference from the mean.

    With `mean = (1 / T) sum_k w_k delta_k`, the result is `mean + strength * sum_k top_p(w_k delta_k - mean)`, where `top_p` keeps
    `floor(share * min(O, I))` singular directions, at least one (Choi et al. 2024, Revisiting Weight Averaging for Model Merging,
    arXiv 2412.12153). All is computed on the cores of `core_space`, where it is exact.

    The differences sum to 0. So what the method adds to the mean comes from their truncation alone: two adapters, and adapters
    whose ranks together are at most `share * min(O, I)`, give the mean. Adapters without an update are not counted in T. The
    published `strength` is tuned; here it is 1 by default.

    Without `rank` the result has the full rank, at most R = sum_k R_k; with `rank` it is the best approximation of this rank.

    Args:
        share: of min(O, I), the number of directions kept of each difference, in (0, 1].
        strength: factor of the kept differences, >= 0.
    """

    identity: ClassVar[Mapping[str, object] | None] = {}

    share: float = 0.04
    strength: float = 1.0

    def __post_init__(self) -> None:
        check_share("share", self.share)
        if isinstance(self.strength, bool) or not isinstance(self.strength, int | float) or not 0 <= self.strength < float("inf"):
            raise InputError("must be a number that is at least 0", field="strength", value=self.strength)

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`."""
        cores = joint_cores(*taking_part(factors, weights))
        count = max(1, int(self.share * min(factors[0].out_features, factors[0].in_features)))
        parts_kPQ = torch.stack(cores.parts)
        mean_PQ = parts_kPQ.mean(dim=0)
        U, S, V_T = torch.linalg.svd(parts_kPQ - mean_PQ, full_matrices=False)
        leading_kPQ = U[:, :, :count] * S[:, None, :count] @ V_T[:, :count]
        return cores.lifted(mean_PQ + self.strength * leading_kPQ.sum(dim=0), rank).factors()
