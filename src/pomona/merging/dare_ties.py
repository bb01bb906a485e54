"""DARE with TIES' election: drop at random, rescale, and average the values with the elected sign."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.merging.base import merge_methods
from pomona.merging.elementwise import Domain, ElementwiseMerge
from pomona.merging.parameters import check_choice, check_share
from pomona.merging.sign_election import Majority, elected_mean
from pomona.merging.thin import thinned


@merge_methods.register("dare_ties")
@dataclass(frozen=True)
class DareTies(ElementwiseMerge):
    """DARE's random drop and rescaling instead of TIES' trim, then TIES' election and disjoint mean.

    `tau_k = m_k * (s_k B_k A_k) / density` with `m_k ~ Bernoulli(density)` for each entry (arXiv 2311.03099, section 3.2);
    the elected sign is that of `sum_k w_k tau_k`, + for 0; the merged matrix is the mean of the `w_k tau_k` that are not 0 and
    have that sign (arXiv 2306.01708, Algorithm 1, steps 2 and 3), truncated to the best approximation of a rank (see
    `ElementwiseMerge`). PEFT's `dare_ties` is `on="factors"`; its `dare_ties_svd` is `on="deltas"`, except that its votes are
    not weighted. Weights and the divisor are as in `ties`. Builds one module's dense matrix with `on="deltas"`.

    Args:
        density: probability with which an entry is kept, in (0, 1]; see `dare_linear`.
        majority: sign of the sum of the values (`total`) or of their signs (`frequency`).
        on: `deltas` as defined above, or `factors` as in PEFT (see `ElementwiseMerge`).
    """

    identity: ClassVar[Mapping[str, object] | None] = {"density": 1.0}

    density: float = 0.5
    majority: Majority = "total"
    on: Domain = "deltas"

    def __post_init__(self) -> None:
        check_share("density", self.density)
        check_choice("majority", self.majority, Majority)
        check_choice("on", self.on, Domain)

    def sparsifier(
        self, blocks: Iterable[Float[Tensor, "_ I"]], entries: int, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        """Drops and rescales."""
        return lambda block: thinned(block, self.density, generator)

    def combine(self, parts: Iterable[Float[Tensor, "N I"]], weights: Sequence[float]) -> Float[Tensor, "N I"]:
        """The disjoint mean."""
        return elected_mean(parts, weights, self.majority)
