"""What a frozen linear module is: its shape, how its weight is stored, and where."""

from __future__ import annotations

import torch
from torch import nn


def is_transposed(module: nn.Module) -> bool:
    """Whether the weight is stored [I, O] (GPT-2's `Conv1D`) and not [O, I]."""
    return not isinstance(module, nn.Linear)


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """(O, I) of a linear module."""
    rows, columns = weight_of(module).shape
    return (columns, rows) if is_transposed(module) else (rows, columns)


def weight_of(module: nn.Module) -> torch.Tensor:
    """The weight of a linear module."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight
