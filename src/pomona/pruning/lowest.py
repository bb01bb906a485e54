"""The lowest of many scores, in exact counts and with ties by place; several vectors of scores at once.

On a CPU each vector is partitioned by itself. On an accelerator vectors of one shape are rows of one tensor, and the host waits
for nothing: no count and no threshold is read.

Axes: G vectors of one shape, n scores of each.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)

LONG = 1 << 20
"""Scores of a vector from which on `torch.kthvalue` is not asked: on CUDA one multiprocessor searches a vector. Below, one search
by it takes less time than the 160 launches of a search by bits."""

_BITS = {torch.float32: (torch.int32, 32), torch.float64: (torch.int64, 64)}


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

    Args:
        scores: importance of each entry, any shape, floating dtype.
        prune_ratio: in [0, 1].
        all_ties: whether all scores that equal the highest one pruned are pruned too, however many they are (the published code of
            GRASP: `score <= kthvalue`); where the count is 0, none is.

    Raises:
        ValueError: the ratio is not in [0, 1], or a score is NaN (it has no place in the order). Scores on an accelerator are not
            looked at: to hear of a NaN the host would have to wait.
    """
    return lowest_of_each([scores], [pruned_count(prune_ratio, scores.numel())], all_ties=all_ties)[0]


def lowest_of_groups(
    scores: Mapping[Key, Float[Tensor, "..."]],
    group: Mapping[Key, Hashable],
    prune_ratio: Mapping[Key, float],
    *,
    all_ties: bool = False,
) -> dict[Key, Bool[Tensor, "..."]]:
    """The masks of `select_lowest` among all tensors of a group together, as if they were one, in the mapping's order.

    Args:
        scores: any key -> scores.
        group: the group of a key.
        prune_ratio: the ratio of a key's group.
        all_ties: see `select_lowest`.

    Returns:
        key -> mask of its tensor; masks may share memory.

    Raises:
        ValueError: see `select_lowest`.
    """
    groups: dict[Hashable, list[Key]] = {}
    for key in scores:
        groups.setdefault(group[key], []).append(key)
    flat = _flat({key: scores[key] for keys in groups.values() if len(keys) > 1 for key in keys})
    pooled = [scores[keys[0]] if len(keys) == 1 else torch.cat([flat[key] for key in keys]) for keys in groups.values()]
    counts = [pruned_count(prune_ratio[keys[0]], one.numel()) for keys, one in zip(groups.values(), pooled, strict=True)]
    found: dict[Key, Tensor] = {}
    for keys, mask in zip(groups.values(), lowest_of_each(pooled, counts, all_ties=all_ties), strict=True):
        parts = mask.reshape(-1).split([scores[key].numel() for key in keys])
        found |= {key: part.view(scores[key].shape) for key, part in zip(keys, parts, strict=True)}
    return {key: found[key] for key in scores}


def _flat(scores: Mapping[Key, Float[Tensor, "..."]]) -> dict[Key, Float[Tensor, " _"]]:
    """Each tensor as a vector. On an accelerator those of one shape that must be copied for it are copied together."""
    copied: dict[torch.Size, list[Key]] = {}
    for key, one in scores.items():
        if not one.is_contiguous() and one.device.type != "cpu":
            copied.setdefault(one.shape, []).append(key)
    found = {
        key: one for keys in copied.values() for key, one in zip(keys, torch.stack([scores[key] for key in keys]), strict=True)
    }
    return {key: found.get(key, one).reshape(-1) for key, one in scores.items()}


@torch.no_grad()
def lowest_of_each(
    tensors: Sequence[Float[Tensor, "..."]], counts: Sequence[int], *, all_ties: bool = False
) -> list[Bool[Tensor, "..."]]:
    """For each tensor the mask of its `count` lowest scores, ties as in `select_lowest`.

    Raises:
        ValueError: see `select_lowest`.
    """
    if all(one.device.type == "cpu" for one in tensors):
        return [_lowest(one, count, all_ties) for one, count in zip(tensors, counts, strict=True)]
    alike: dict[object, list[int]] = {}
    for place, (one, count) in enumerate(zip(tensors, counts, strict=True)):
        alike.setdefault((one.shape, one.dtype, one.device, count), []).append(place)
    found: dict[int, Tensor] = {}
    for places in alike.values():
        stacked = torch.stack([tensors[place] for place in places])
        masks = lowest_of_rows(stacked.flatten(1), counts[places[0]], all_ties=all_ties).view(stacked.shape)
        found |= zip(places, masks.unbind(), strict=True)
    return [found[place] for place in range(len(tensors))]


def _lowest(scores: Float[Tensor, "*shape"], count: int, all_ties: bool) -> Bool[Tensor, "*shape"]:
    """On a CPU: one partition finds the threshold, one comparison the mask; ties alone are looked at again."""
    flat = scores.detach().reshape(-1)
    if flat.numel() and bool(flat.max().isnan()):
        raise ValueError(f"{int(flat.isnan().sum())} of {flat.numel()} scores are NaN")
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    # numpy's vectorised partition takes a tenth of the time of torch.kthvalue; numpy has no bfloat16.
    values = flat.float() if flat.dtype == torch.bfloat16 else flat
    threshold = float(np.partition(values.numpy(), count - 1)[count - 1])
    mask = flat <= threshold
    surplus = int(torch.count_nonzero(mask)) - count
    if surplus and not all_ties:
        ties = (flat == threshold).nonzero().reshape(-1)
        mask[ties[-surplus:]] = False
    return mask.reshape(scores.shape)


@torch.no_grad()
def lowest_of_rows(scores_Gn: Float[Tensor, "G n"], count: int, *, all_ties: bool = False) -> Bool[Tensor, "G n"]:
    """The mask of the `count` lowest scores of each row, ties as in `select_lowest`, on any device; nothing is read."""
    if count == 0:
        return torch.zeros_like(scores_Gn, dtype=torch.bool)
    if scores_Gn.shape[1] < LONG:
        threshold_G1 = scores_Gn.kthvalue(count, dim=1, keepdim=True).values
    else:
        threshold_G1 = threshold_by_bits(scores_Gn, count)
    if all_ties:
        return scores_Gn <= threshold_G1
    mask_Gn, ties_Gn = scores_Gn < threshold_G1, scores_Gn == threshold_G1
    room_G1 = count - mask_Gn.sum(dim=1, keepdim=True)
    return mask_Gn.logical_or_(ties_Gn.logical_and_(ties_Gn.cumsum(dim=1, dtype=torch.int32) <= room_G1))


def threshold_by_bits(scores_Gn: Float[Tensor, "G n"], count: int) -> Float[Tensor, "G 1"]:
    """The `count`-th lowest score of each row, found from the highest bit to the lowest by counting what lies below.

    Read as whole numbers with a sign, the bits of floats have the floats' order, if those of negative numbers are flipped.
    """
    values = (scores_Gn if scores_Gn.dtype in _BITS else scores_Gn.float()) + 0.0  # -0 and 0 are one score
    whole, bits = _BITS[values.dtype]
    flips = torch.iinfo(whole).max
    keys = values.view(whole)
    keys = keys ^ ((keys >> (bits - 1)) & flips)
    negative_G1 = (keys < 0).sum(dim=1, keepdim=True) >= count
    found_G1 = torch.where(negative_G1, torch.iinfo(whole).min, 0).to(whole)
    for bit in range(bits - 2, -1, -1):
        trial_G1 = found_G1 + (1 << bit)
        found_G1 = torch.where((keys < trial_G1).sum(dim=1, keepdim=True) < count, trial_G1, found_G1)
    return (found_G1 ^ ((found_G1 >> (bits - 1)) & flips)).view(values.dtype).to(scores_Gn.dtype)


def no_nan(tensors: Iterable[Float[Tensor, "..."]]) -> Float[Tensor, ""]:
    """0, or NaN where any of the tensors has one; not read, so that the host need not wait."""
    highest = torch.stack([one.amax() for one in tensors]).amax()  # of a NaN and a number it is the NaN
    return torch.where(highest.isnan(), math.nan, 0.0)
