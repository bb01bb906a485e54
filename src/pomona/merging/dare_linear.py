"""DARE with a plain sum: drop at random, rescale, add."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.merging.base import merge_methods
from pomona.merging.elementwise import Domain, ElementwiseMerge
from pomona.merging.parameters import check_choice, check_share
from pomona.merging.thin import thinned


@merge_methods.register("dare_linear")
@dataclass(frozen=True)
class DareLinear(ElementwiseMerge):
    """DARE: drop entries of each delta at random, rescale the rest to keep the expected value, and sum.

    `tau_k = m_k * (s_k B_k A_k) / density` with `m_k ~ Bernoulli(density)` for each entry; the merged matrix is
    `sum_k w_k tau_k` (Yu et al. 2023, Language Models are Super Mario, arXiv 2311.03099, section 3.2; `density` is the paper's
    `1 - p`), truncated to the best approximation of a rank (see `ElementwiseMerge`), which removes most of the added noise.
    The expected value before the truncation is delta*. Each adapter has its own random stream, which depends on its content, not
    its position. PEFT's `dare_linear` is `on="factors"`, its `dare_linear_svd` is `on="deltas"`; its masks come from the global
    random state. Builds one module's dense matrix with `on="deltas"`.

    Args:
        density: probability with which an entry is kept, in (0, 1]. The paper drops up to 90 % and more of full fine-tunes,
            whose deltas are small; the added noise has `1 / density - 1` times the delta's energy, which is equal at density 0.5.
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
        """Drops and rescales."""
        return lambda block: thinned(block, self.density, generator)
