"""Merge by clusters of the adapters' rank-one components (LoRA-LEGO).

Axes: R rank, I input features, O output features, N components of all adapters, K clusters, D = I + O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pomona.adapters.factored_svd import factored_svd
from pomona.adapters.factors import Factors
from pomona.adapters.truncated import Loss, Truncated
from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.cores import taking_part

_MOST_ITERATIONS = 300


@merge_methods.register("lego")
@dataclass(frozen=True)
class Lego(MergeMethod):
    """Cluster the rank-one components of all adapters, and keep one component for each cluster.

    Component j of adapter k is the point `[a_kj; b_kj]` in I + O dimensions, with `a_kj = sign(w_k s_k) sqrt|w_k s_k| A_k,j:` and
    `b_kj = sqrt|w_k s_k| B_k,:j`. K-means makes K clusters of the N points. A centre is scaled by the mean of its members' largest
    absolute entries over its own, and all b by `sqrt(N / K)`. With K = N the result is delta*.

    Zhao et al. 2024, Merging LoRAs like Playing LEGO, arXiv 2409.16167. Deviations: the share `w_k s_k` is split over both factors,
    so that scaling all weights scales the result; the clusters start from the points that are farthest from each other, so nothing
    is random and the order of the adapters has no effect; components that contribute nothing are left out and not counted.

    Without `rank` K is the largest R_k. The loss of a rank is measured against delta*.
    """

    identity: ClassVar[Mapping[str, object] | None] = {}

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`."""
        factors, weights = taking_part(factors, weights)
        points_ND, I = _components(factors, weights), factors[0].in_features  # noqa: E741
        N, K = len(points_ND), max(one.rank for one in factors) if rank is None else rank
        if N == 0:
            points_ND = points_ND.new_zeros(1, points_ND.shape[1])
        if N <= K:
            return Factors(points_ND[:, :I].float(), points_ND[:, I:].T.float())
        merged_KD = _centres(points_ND, k_means(points_ND, K))
        A_KI, B_OK = merged_KD[:, :I], merged_KD[:, I:].T * math.sqrt(N / len(merged_KD))
        A_NI, B_ON = points_ND[:, :I], points_ND[:, I:].T
        difference = factored_svd(torch.cat([A_NI, A_KI]), torch.cat([B_ON, -B_OK], dim=1))
        loss = Loss(float(difference.S_K.square().sum()), float(factored_svd(A_NI, B_ON).S_K.square().sum()))
        return Truncated(A_KI.float(), B_OK.float(), loss=loss)


def _components(factors: Sequence[Factors], weights: Sequence[float]) -> Float[Tensor, "N D"]:
    points = []
    for one, weight in zip(factors, weights, strict=True):
        share = weight * one.scaling
        root = math.sqrt(abs(share))
        A_RI, B_OR = math.copysign(root, share) * one.A.double(), root * one.B.double()
        points.append(torch.cat([A_RI, B_OR.T], dim=1)[A_RI.any(dim=1) & B_OR.any(dim=0)])
    return torch.cat(points)


def _centres(points_ND: Float[Tensor, "N D"], cluster_N: Int[Tensor, " N"]) -> Float[Tensor, "K D"]:
    """The mean of each cluster that has members, as strong as these are on average in their largest absolute entry."""
    sizes = points_ND.abs().amax(dim=1)
    found = []
    for cluster in cluster_N.unique().tolist():
        members = cluster_N == cluster
        centre_D = points_ND[members].mean(dim=0)
        size = float(centre_D.abs().amax())
        found.append(centre_D * (float(sizes[members].mean()) / size if size > 0 else 0.0))
    return torch.stack(found)


def k_means(points_ND: Float[Tensor, "N D"], clusters: int) -> Int[Tensor, " N"]:
    """The cluster of each point, by Lloyd's iteration: from the longest point, and then each time the farthest from all before.

    Clusters without members remain where points coincide.

    Args:
        points_ND: fp64.
        clusters: in [1, N].
    """
    centres = points_ND[points_ND.norm(dim=1).argmax()][None].clone()
    while len(centres) < clusters:
        centres = torch.cat([centres, points_ND[torch.cdist(points_ND, centres).amin(dim=1).argmax()][None]])
    cluster_N = torch.cdist(points_ND, centres).argmin(dim=1)
    for _ in range(_MOST_ITERATIONS):
        for cluster in cluster_N.unique().tolist():
            centres[cluster] = points_ND[cluster_N == cluster].mean(dim=0)
        before, cluster_N = cluster_N, torch.cdist(points_ND, centres).argmin(dim=1)
        if torch.equal(before, cluster_N):
            break
    return cluster_N
