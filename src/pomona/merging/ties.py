"""TIES: trim, elect a sign, average the values with this sign."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.merging.base import merge_methods
from pomona.merging.elementwise import Domain, ElementwiseMerge
from pomona.merging.largest import keep_largest
from pomona.merging.parameters import check_choice, check_share
from pomona.merging.sign_election import Majority, elected_mean


@merge_methods.register("ties")
@dataclass(frozen=True)
class Ties(ElementwiseMerge):
    """TIES: keep each delta's largest entries, elect a sign for every entry, average the deltas with this sign.

    `tau_k` is `s_k B_k A_k` with all but its floor(density O I) entries of largest magnitude set to zero (ties broken by
    index); the elected sign is `gamma = sign(sum_k w_k tau_k)`, + for 0; the merged matrix is the mean of the `w_k tau_k`
    that are not 0 and have that sign (Yadav et al. 2023, TIES-Merging, arXiv 2306.01708, Algorithm 1), truncated to the
    best approximation of a rank (see `ElementwiseMerge`). Builds one module's dense matrix with `on="deltas"`.

    Deviations: the paper trims over the whole model, Pomona and PEFT over one module. The paper has one factor for the sum instead
    of w_k; here the w_k weight the votes and the values, as in mergekit, and the mean divides by a count, as in PEFT, so that
    scaling the weights scales the result. PEFT's `ties` is `on="factors"`; its `ties_svd` is `on="deltas"`, except
    that its votes are not weighted, and that it counts an adapter of weight 0.

    Args:
        density: share of entries kept in each delta, in (0, 1]; the paper's top 20 %.
        majority: sign of the sum of the values (`total`, the paper's) or of their signs (`frequency`, as PEFT offers it).
        on: `deltas` as defined above, or `factors` as in PEFT (see `ElementwiseMerge`).
    """

    identity: ClassVar[Mapping[str, object] | None] = {"density": 1.0}

    density: float = 0.2
    majority: Majority = "total"
    on: Domain = "deltas"

    def __post_init__(self) -> None:
        check_share("density", self.density)
        check_choice("majority", self.majority, Majority)
        check_choice("on", self.on, Domain)

    def sparsifier(
        self, blocks: Iterable[Float[Tensor, "_ I"]], entries: int, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        """Keeps the largest entries."""
        return keep_largest(blocks, int(self.density * entries))

    def combine(self, parts: Iterable[Float[Tensor, "N I"]], weights: Sequence[float]) -> Float[Tensor, "N I"]:
        """The disjoint mean."""
        return elected_mean(parts, weights, self.majority)
