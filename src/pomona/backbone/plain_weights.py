"""Which linear modules hold plain float matrices, or a quantiser's that gradients pass: nothing else is trained beside."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pomona.backbone.quantised import quantised_bits
from pomona.backbone.sharded import is_sharded
from pomona.errors import InputError

_FLOATS = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})
_PLAIN = frozenset({torch.Tensor, nn.Parameter})
_ROOMS = ("torch.", "transformers.pytorch_utils", "transformers.models.", "pomona.")


def refuse_packed(modules: Mapping[str, nn.Module]) -> None:
    """Refuse modules whose weight is neither a matrix of floats as torch itself has it, nor bitsandbytes' codes.

    Args:
        modules: path -> linear module.

    Raises:
        InputError: one is not plain; names it and says what it is.
    """
    for path, module in modules.items():
        weight = module.weight
        kind = type(module)
        plain = (
            isinstance(weight, torch.Tensor)
            and (type(weight) in _PLAIN or is_sharded(weight))
            and weight.dtype in _FLOATS
            and tuple(weight.shape) in _shapes(module)
            and kind.__module__.startswith(_ROOMS)
        )
        if not plain and quantised_bits(module) is None:
            shape = " x ".join(map(str, getattr(weight, "shape", ())))
            raise InputError(
                f"is not a plain float matrix but {kind.__module__}.{kind.__name__} with a weight of {shape} in "
                f"{getattr(weight, 'dtype', type(weight).__name__)}",
                field=path,
                fix="Give the model before it was quantised",
            )


def _shapes(module: nn.Module) -> set[tuple[object, ...]]:
    """The shapes that the weight may have by what the module says of itself: torch's linear map, or GPT-2's `Conv1D`."""
    if isinstance(module, nn.Linear):
        return {(module.out_features, module.in_features)}
    return {(getattr(module, "nx", None), getattr(module, "nf", None))}
