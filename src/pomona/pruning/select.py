"""Which entries are pruned: the lowest scores, exactly as many as the prune ratio says."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


def pruned_count(prune_ratio: float, n: int) -> int:
    """How many of `n` entries are pruned: `floor(prune_ratio * n)`, meant in decimal. The only place that rounds.

    0.29 of 100 is 29, although `0.29 * 100` is 28.999999999999996 in binary: the product is rounded to nine decimals first.

    Args:
        prune_ratio: share of the entries to prune, in [0, 1].
        n: number of entries, >= 0.

    Raises:
        ValueError: the ratio is not in [0, 1], or n is negative.
    """
    if not 0.0 <= prune_ratio <= 1.0:
        raise ValueError(f"prune_ratio must be in [0, 1], got {prune_ratio!r}")
    if n < 0:
        raise ValueError(f"n must be >= 0, got {n!r}")
    return min(n, math.floor(round(prune_ratio * n, 9)))


@torch.no_grad()
def select_lowest(scores: Float[Tensor, "*shape"], prune_ratio: float, *, all_ties: bool = False) -> Bool[Tensor, "*shape"]:
    """The mask of the `pruned_count(prune_ratio, n)` lowest scores; True = pruned.

    Of equal scores the one with the lower flat (row-major) index is pruned first, so the mask is the one that a stable
    sort would give, and masks are nested: a lower ratio's mask lies within a higher one's.
    One selection finds the threshold, one comparison the mask; only scores that tie with the threshold are looked at again.

    Args:
        scores: importance of each entry, any shape, floating dtype.
        prune_ratio: in [0, 1].
        all_ties: whether all scores that equal the highest one pruned are pruned too, however many they are (the published code of
            GRASP: `score <= kthvalue`); where the count is 0, none is.

    Raises:
        ValueError: the ratio is not in [0, 1], or a score is NaN (it has no place in the order).
    """
    flat = scores.detach().reshape(-1)
    count = pruned_count(prune_ratio, flat.numel())
    if flat.numel() and bool(flat.max().isnan()):
        raise ValueError(f"{int(flat.isnan().sum())} of {flat.numel()} scores are NaN")
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = _lowest(flat, count)
    mask = flat <= threshold
    surplus = int(torch.count_nonzero(mask)) - count
    if surplus and not all_ties:
        ties = (flat == threshold).nonzero().reshape(-1)
        mask[ties[-surplus:]] = False
    return mask.reshape(scores.shape)


def _lowest(flat: Float[Tensor, " n"], count: int) -> float | Tensor:
    """The `count`-th lowest value."""
    if flat.device.type != "cpu":
        return flat.kthvalue(count).values
    # On a CPU numpy's vectorised partition takes a tenth of the time of torch.kthvalue; numpy has no bfloat16.
    values = flat.float() if flat.dtype == torch.bfloat16 else flat
    return float(np.partition(values.numpy(), count - 1)[count - 1])
