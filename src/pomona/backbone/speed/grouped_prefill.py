"""Prompts of a batch are read in groups of similar length, into one cache: worth their padding, most where lengths differ.

`python -m benchmarks generation` measures it together with `finished_rows`. Reading is bound by arithmetic, so padding costs time.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pomona.backbone.batches import similar_order
from pomona.backbone.cache_argument import cache_argument
from pomona.backbone.speed.base import SpeedUp, speed_ups

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROWS = 8
"""Prompts a group. Reading is bound by arithmetic, so more rows at once gain nothing; only decoding does."""


@speed_ups.register("grouped_prefill")
@dataclass(frozen=True)
class GroupedPrefill(SpeedUp):
    """Prompts are read in groups of similar length."""

    def suits(self, model: PreTrainedModel) -> bool:
        """See `SpeedUp.suits`: every model; a cache that cannot be joined is filled in one go."""
        return True


def positions(content_BT: Tensor) -> Tensor:
    """Each token's place in its own text, [B, T]; padding on the left has the first's."""
    return (content_BT.cumsum(dim=1) - 1).clamp(min=0)


def prefill(model: PreTrainedModel, tokens_BT: Tensor, content_BT: Tensor, cache: Any, grouped: bool = True) -> tuple[Tensor, Any]:
    """The logits after each prompt, [B, V], and the cache that holds all prompts as if they had been read together.

    Args:
        model: causal.
        tokens_BT: prompts, padded on the left.
        content_BT: 1 where a token is not padding, else 0.
        cache: an empty one. Caches of other kinds than keys and values that grow are filled in one go.
        grouped: whether prompts are read in groups; else in one go.
    """
    lengths: list[int] = content_BT.sum(dim=1).tolist()
    groups = similar_order(lengths, _ROWS) if grouped and _can_be_joined(cache) else [list(range(len(lengths)))]
    name, logits, parts = cache_argument(model), [], []
    for rows in groups:
        longest = max(lengths[row] for row in rows)
        content = content_BT[rows, -longest:]
        part = copy.deepcopy(cache)
        output = model(
            input_ids=tokens_BT[rows, -longest:],
            attention_mask=None if content.all() else content,
            position_ids=positions(content),
            use_cache=True,
            logits_to_keep=1,
            **{name: part},
        )
        logits.append(output.logits[:, -1])
        parts.append(part)
    joined = _joined(parts)
    place_of = {row: place for place, row in enumerate(row for rows in groups for row in rows)}
    order = torch.tensor([place_of[row] for row in range(len(lengths))], device=tokens_BT.device)
    if len(parts) > 1:
        joined.reorder_cache(order)
    return torch.cat(logits)[order], joined


def _can_be_joined(cache: Any) -> bool:
    """Whether all that it keeps of a text are its tokens' keys and values, the last at the end."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    kinds = (DynamicLayer, DynamicSlidingWindowLayer)
    return type(cache) is DynamicCache and bool(cache.layers) and all(type(layer) in kinds for layer in cache.layers)


def _joined(parts: Sequence[Any]) -> Any:
    """One cache of all rows, from the caches of groups with the longest first, whose counts hold for all.

    What a shorter group lacks at the beginning is zeros, which the mask hides.
    """
    first = parts[0]
    if len(parts) > 1:
        for layers in zip(*(part.layers for part in parts), strict=True):
            length = max(layer.keys.shape[-2] for layer in layers)
            for kind in ("keys", "values"):
                held = [getattr(layer, kind) for layer in layers]
                setattr(layers[0], kind, torch.cat([F.pad(one, (0, 0, length - one.shape[-2], 0)) for one in held]))
    return first
