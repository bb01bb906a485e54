"""What a frozen linear module is: its shape, how its weight is stored, and where."""

from __future__ import annotations

import torch
from torch import nn

from pomona.backbone.sharded import is_sharded


def is_transposed(module: nn.Module) -> bool:
    """Whether the weight is stored [I, O] (GPT-2's `Conv1D`) and not [O, I]."""
    return not isinstance(module, nn.Linear)


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """(O, I) of a linear module, by what it says of itself: a quantised weight has another shape."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    rows, columns = weight_of(module).shape
    return columns, rows


def weight_of(module: nn.Module) -> torch.Tensor:
    """The weight of a linear module."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def holds_update(module: nn.Module) -> bool:
    """Whether an update can be added to the weight and is still there afterwards.

    Rounding to bfloat16 loses a third of a small update, and a quantised weight all of it. Of a sharded weight there is but a part.
    """
    weight = weight_of(module)
    return weight.dtype in (torch.float32, torch.float64) and not is_sharded(weight)
