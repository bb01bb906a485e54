"""Model breadcrumbs: drop each delta's outliers and its negligible entries, then sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.errors import InputError
from pomona.merging.base import merge_methods
from pomona.merging.elementwise import ElementwiseMerge
from pomona.merging.largest import Largest
from pomona.merging.parameters import check_share


@merge_methods.register("breadcrumbs")
@dataclass(frozen=True)
class Breadcrumbs(ElementwiseMerge):
    """Drop the largest and the smallest entries of each delta, and sum the remaining entries, without rescaling.

    With the n = O I entries of `s_k B_k A_k` in order of magnitude, largest first and ties by index, `tau_k` keeps the
    floor(density n) that follow the first floor(gamma n); the merged matrix is `sum_k w_k tau_k` (Davari and Belilovsky 2023,
    Model Breadcrumbs, arXiv 2312.06795), truncated to the best approximation of a rank (see `ElementwiseMerge`). Builds one
    module's dense matrix.

    Deviations: the paper gives the two thresholds; here, as in mergekit, the parameters are the share kept and the share dropped
    at the top. Entries are ranked within the module; the published code ranks them within each row. If density + gamma > 1,
    mergekit drops less at the top, and Pomona raises an error.

    Args:
        density: share of entries kept, in (0, 1]; 0.9 with gamma 0.01 is mergekit's worked example.
        gamma: share of entries of largest magnitude that are dropped, in [0, 1 - density].
    """

    identity: ClassVar[Mapping[str, object] | None] = {"density": 1.0, "gamma": 0.0}

    density: float = 0.9
    gamma: float = 0.01

    def __post_init__(self) -> None:
        check_share("density", self.density)
        check_share("gamma", self.gamma, zero=True)
        if self.density + self.gamma > 1:
            raise InputError("must be at most 1 - density", field="gamma", value=self.gamma, fix="Lower gamma or density")

    def sparsifier(
        self, blocks: Iterable[Float[Tensor, "_ I"]], entries: int, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        """Keeps the entries of medium magnitude."""
        outliers = int(self.gamma * entries)
        upper = Largest(blocks, outliers + int(self.density * entries))
        top = Largest(blocks, outliers)
        return lambda block: (upper(block) & ~top(block)).to(block.dtype).mul_(block)
