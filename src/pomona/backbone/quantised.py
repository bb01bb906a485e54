"""Quantised linear modules: bitsandbytes' 4-bit and 8-bit ones, which a LoRA is trained beside and never folded into.

Axes: I input features, O output features.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_BITS = {"Params4bit": 4, "Int8Params": 8}


def quantised_bits(module: nn.Module) -> int | None:
    """4 or 8, where a module is one of bitsandbytes' linear modules with a quantised weight; else None."""
    if not type(module).__module__.startswith("bitsandbytes."):
        return None
    return _BITS.get(type(module._parameters.get("weight")).__name__)


@torch.no_grad()
def dequantised(module: Any) -> Float[Tensor, "O I"]:
    """The matrix that a quantised module stands for, in float32.

    Args:
        module: one with `quantised_bits`.
    """
    from bitsandbytes import functional

    weight = module.weight
    if quantised_bits(module) == 4:
        # Some CPUs' inference has its own layout of the codes; asking for the state puts the first one back.
        module.state_dict()
        return functional.dequantize_4bit(weight.data, weight.quant_state).float()
    scale_O = module.state.SCB if module.state.SCB is not None else weight.SCB
    return functional.int8_vectorwise_dequant(weight.data, scale_O).float()


def ready_to_train(model: nn.Module) -> None:
    """Make quantised modules pass gradients on to their inputs in every order of passes.

    On a CPU with AVX-512 for bfloat16, bitsandbytes turns the codes of a 4-bit module into another layout in the first pass
    without gradient. From then on the module passes no gradient on, without saying so.
    """
    for module in model.modules():
        if quantised_bits(module) == 4:
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]
