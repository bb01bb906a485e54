"""Combinations of several adapters' sparse updates: their weighted sum, or the mean of the values with the elected sign."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Majority = Literal["total", "frequency"]


def weighted_sum(parts: Iterable[Float[Tensor, "N I"]], weights: Sequence[float]) -> Float[Tensor, "N I"]:
    """`sum_k w_k part_k`, with one part in memory at a time.

    Args:
        parts: one or more; not changed.
        weights: one for each.
    """
    total = None
    for part, weight in zip(parts, weights, strict=True):
        total = part * weight if total is None else total.add_(part, alpha=weight)
    assert total is not None
    return total


def elected_mean(parts: Iterable[Float[Tensor, "N I"]], weights: Sequence[float], majority: Majority) -> Float[Tensor, "N I"]:
    """TIES' election and disjoint mean (Yadav et al. 2023, arXiv 2306.01708, section 3, steps 2 and 3), entry by entry.

    The elected sign is that of `sum_k part_k` (majority `total`) or of `sum_k sign(part_k)` (`frequency`); a sum of 0 counts
    as +, as in PEFT. The result is `sum_k w_k part_k / count` over the parts that are not 0 and have that sign; 0 if none has.

    Args:
        parts: one or more, which vote with their values; not changed.
        weights: one for each, applied after the election.
        majority: the sum that decides the sign.
    """
    held = list(parts)
    votes = torch.zeros_like(held[0])
    for part in held:
        votes.add_(part if majority == "total" else part.sign())
    elected = votes.ge_(0.0).mul_(2.0).sub_(1.0)  # +1 or -1; in place, because torch.where with numbers is ten times slower
    merged, count = torch.zeros_like(elected), torch.zeros_like(elected)
    for part, weight in zip(held, weights, strict=True):
        agreeing = (part * elected).relu_()
        merged.add_(agreeing, alpha=weight)
        count.add_(agreeing.sign_())
    return merged.mul_(elected).div_(count.clamp_(min=1.0))
