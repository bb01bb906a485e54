"""The rank of each merged module, and whether the method supports these adapters, from their ranks alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from pomona.adapters.factors import Factors
from pomona.adapters.model_order import model_order
from pomona.merging.base import merge_methods
from pomona.merging.weights import Weight, module_weights


def merged_ranks(
    ranks: Sequence[Mapping[str, int]],
    method: str,
    weights: Sequence[Weight],
    rank: int | None = None,
    parameters: Mapping[str, object] | None = None,
) -> dict[str, int]:
    """The rank of each merged module, found by merging small random factors of the same ranks.

    The modules' real sizes are ignored: if a module is smaller than the rank, the merge has a lower rank.

    Args:
        ranks: for each adapter, module -> R.
        method: a name in `merge_methods`.
        weights: one for each adapter.
        rank: the largest allowed rank of a module; None: the method's default.
        parameters: the method's hyperparameters.

    Raises:
        InputError: as `merge` for adapters of these ranks.
    """
    chosen = merge_methods.create(method, parameters or {})
    modules = sorted({module for one in ranks for module in one}, key=model_order)
    found: dict[str, int] = {}
    tried: dict[tuple[int, ...], int] = {}
    for module, w_K in module_weights(weights, modules).items():
        parts = [(one[module], w) for one, w in zip(ranks, w_K, strict=True) if one.get(module, 0) and w != 0]
        R_K = tuple(R for R, _ in parts)
        if parts and R_K not in tried:
            generator = torch.Generator().manual_seed(0)
            side = sum(R_K) + 1  # large enough that no module size limits the rank
            factors = [Factors(torch.randn(R, side, generator=generator), torch.randn(side, R, generator=generator)) for R in R_K]
            tried[R_K] = chosen.merge(factors, [w for _, w in parts], rank, generator).A.shape[0]
        found[module] = tried[R_K] if parts else 1
    return found
