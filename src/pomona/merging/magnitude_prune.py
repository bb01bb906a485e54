"""Sum of the deltas' largest entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.merging.base import merge_methods
from pomona.merging.elementwise import Domain, ElementwiseMerge
from pomona.merging.largest import keep_largest
from pomona.merging.parameters import check_choice, check_share


@merge_methods.register("magnitude_prune")
@dataclass(frozen=True)
class MagnitudePrune(ElementwiseMerge):
    """Keep each delta's entries of largest magnitude, and sum: task arithmetic on trimmed deltas.

    `tau_k` is `s_k B_k A_k` with all but its floor(density O I) entries of largest magnitude set to zero (ties broken by
    index); the merged matrix is `sum_k w_k tau_k`, truncated to the best approximation of a rank (see `ElementwiseMerge`): TIES
    without its election (arXiv 2306.01708). PEFT's `magnitude_prune` is `on="factors"`, its `magnitude_prune_svd` is
    `on="deltas"`. Builds one module's dense matrix with `on="deltas"`.

    Args:
        density: share of entries kept in each delta, in (0, 1]. There is no published default; half, as for DARE.
        on: `deltas` as defined above, or `factors` as in PEFT (see `ElementwiseMerge`).
    """

    identity: ClassVar[Mapping[str, object] | None] = {"density": 1.0}

    density: float = 0.5
    on: Domain = "deltas"

    def __post_init__(self) -> None:
        check_share("density", self.density)
        check_choice("on", self.on, Domain)

    def sparsifier(
        self, blocks: Iterable[Float[Tensor, "_ I"]], entries: int, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        """Keeps the largest entries."""
        return keep_largest(blocks, int(self.density * entries))
