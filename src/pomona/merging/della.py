"""DELLA: drop at random, small entries more often than large ones, rescale, and average the values with the elected sign."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.errors import InputError
from pomona.merging.base import merge_methods
from pomona.merging.elementwise import ElementwiseMerge
from pomona.merging.parameters import check_choice, check_share
from pomona.merging.sign_election import Majority, elected_mean
from pomona.merging.thin import thinned


@merge_methods.register("della")
@dataclass(frozen=True)
class Della(ElementwiseMerge):
    """DELLA: drop at random, with higher probability for smaller entries of a row, rescale, elect a sign, average.

    In each row of `s_k B_k A_k` [O, I] the entries are ranked by magnitude, r = 0 for the smallest to I - 1 for the largest
    (of ties the first counts as larger). `tau_k` keeps an entry with probability
    `p_r = density - epsilon + 2 epsilon r / (I - 1)` and divides it by p_r, so that the expected value is kept (MagPrune);
    election and disjoint mean as in `ties`; then truncated to the best approximation of a rank (see `ElementwiseMerge`). Deep et
    al. 2024, DELLA-Merging, arXiv 2406.11617. Builds one module's dense matrix.

    Deviations: the paper's parameters are the mean drop rate `1 - density` and the whole width of the window; here, as in mergekit,
    they are the density and half the width, and the probabilities reach both ends of the window. The weights include the paper's
    factor for the sum. mergekit rescales by norms instead of 1 / p_r.

    Args:
        density: mean probability with which an entry is kept, in (0, 1]; half, as for DARE.
        epsilon: half the width of the probabilities' window, >= 0, with density - epsilon > 0 and density + epsilon <= 1;
            0.15 is mergekit's default.
        majority: sign of the sum of the values (`total`) or of their signs (`frequency`).
    """

    identity: ClassVar[Mapping[str, object] | None] = {"density": 1.0, "epsilon": 0.0}

    density: float = 0.5
    epsilon: float = 0.15
    majority: Majority = "total"

    def __post_init__(self) -> None:
        check_share("density", self.density)
        check_share("epsilon", self.epsilon, zero=True)
        check_choice("majority", self.majority, Majority)
        if self.density - self.epsilon <= 0 or self.density + self.epsilon > 1:
            problem = f"must leave density +- epsilon within (0, 1], and density is {self.density}"
            raise InputError(problem, field="epsilon", value=self.epsilon, fix="Lower epsilon")

    def sparsifier(
        self, blocks: Iterable[Float[Tensor, "_ I"]], entries: int, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        """Drops by rank and rescales."""
        return lambda block: thinned(block, self.keep_probabilities(block), generator)

    def keep_probabilities(self, block: Float[Tensor, "N I"]) -> Float[Tensor, "N I"]:
        """p_r of each entry, [N, I]; `density` if a row has only one entry."""
        width = block.shape[1]
        if width == 1:
            return torch.full_like(block, self.density)
        falling_I = torch.linspace(self.density + self.epsilon, self.density - self.epsilon, width, device=block.device)
        largest_first = block.abs().argsort(dim=1, descending=True, stable=True)
        return torch.empty_like(block).scatter_(1, largest_first, falling_I.expand_as(block))

    def combine(self, parts: Iterable[Float[Tensor, "N I"]], weights: Sequence[float]) -> Float[Tensor, "N I"]:
        """The disjoint mean."""
        return elected_mean(parts, weights, self.majority)
