"""Masks at work: prune, keep what was pruned in a stash, try another mask, commit it. Pure functions on tensors.

Legend: `W` weights, where pruned at their reset value (0 unless others are given); `stash` of W's shape, the values that pruned
entries had when they were pruned, 0 elsewhere; `mask` True = pruned, of W's shape or of its last axes: the mask [R, I] of a stack
W [K, R, I] is in force for every one of the K.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Commit(NamedTuple):
    """What `commit` returns: the new weights and stash, and which entries of the mask changed sides."""

    W: Float[Tensor, "*shape"]
    stash: Float[Tensor, "*shape"]
    newly_pruned: Bool[Tensor, "*mask"]
    revived: Bool[Tensor, "*mask"]


@torch.no_grad()
def restored(W: Float[Tensor, "*shape"], mask: Bool[Tensor, "*mask"], stash: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The weights with every pruned entry revived: `where(mask, stash, W)`.

    Importance for a new mask is computed on these: an entry's score at zero is 0, so it could never come back.
    """
    return torch.where(mask, stash, W)


@torch.no_grad()
def trial_values(
    W: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*mask"],
    stash: Float[Tensor, "*shape"],
    trial_mask: Bool[Tensor, "*mask"],
    reset: Float[Tensor, "*shape"] | None = None,
) -> Float[Tensor, "*shape"]:
    """The weights under a mask on trial: `reset` where `trial_mask`, else as `restored`. New tensors; nothing is changed.

    Args:
        W: weights, with `mask` in force.
        mask: in force.
        stash: of `mask`.
        trial_mask: on trial.
        reset: the values that pruned entries take; None: 0.
    """
    values = restored(W, mask, stash)
    return values.masked_fill_(trial_mask, 0.0) if reset is None else torch.where(trial_mask, reset, values)


@torch.no_grad()
def commit(
    W: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*mask"],
    stash: Float[Tensor, "*shape"],
    new_mask: Bool[Tensor, "*mask"],
    reset: Float[Tensor, "*shape"] | None = None,
) -> Commit:
    """Put `new_mask` in force. New tensors; nothing is changed.

    Newly pruned values go to the stash, revived entries get their stashed value back, entries that stay pruned keep their
    stash: committing `new_mask` and then `mask` again restores W and stash bit for bit.

    Args:
        W: weights, with `mask` in force.
        mask: in force.
        stash: of `mask`.
        new_mask: to be in force.
        reset: the values that pruned entries take, the same as at the commit before; None: 0.

    Returns:
        The new W and stash, and the masks of newly pruned and of revived entries (whose optimizer moments are to be cleared).
    """
    values = restored(W, mask, stash)
    zero = torch.zeros((), dtype=values.dtype, device=values.device)
    return Commit(
        W=torch.where(new_mask, zero if reset is None else reset, values),
        stash=torch.where(new_mask, values, zero),
        newly_pruned=new_mask & ~mask,
        revived=mask & ~new_mask,
    )


def change_share(masks_before: Sequence[Bool[Tensor, "..."]], masks_after: Sequence[Bool[Tensor, "..."]]) -> float:
    """Share of all entries, over all tensors together, that are pruned in one and kept in the other; in [0, 1].

    Args:
        masks_before: one mask for each tensor.
        masks_after: the same tensors' masks later, in the same order.

    Raises:
        ValueError: the numbers of masks differ, or there is no entry at all.
    """
    total = sum(mask.numel() for mask in masks_before)
    if total == 0:
        raise ValueError(f"no entries in {len(masks_before)} masks")
    changed = sum(int((before ^ after).sum()) for before, after in zip(masks_before, masks_after, strict=True))
    return changed / total


def jaccard(masks_a: Sequence[Bool[Tensor, "..."]], masks_b: Sequence[Bool[Tensor, "..."]]) -> float:
    """Agreement of two sets of pruned entries: `|a and b| / |a or b|` over all tensors together; 1 where both prune nothing.

    Args:
        masks_a: one mask for each tensor.
        masks_b: the other masks of the same tensors, in the same order.

    Raises:
        ValueError: the numbers of masks differ.
    """
    both = either = 0
    for a, b in zip(masks_a, masks_b, strict=True):
        both += int((a & b).sum())
        either += int((a | b).sum())
    return both / either if either else 1.0
