"""Frozen float32 linear maps by oneDNN: worth twice the speed on a CPU with AVX-512 that is not Intel's, nothing elsewhere.

Measured by `python -m benchmarks frozen_products`: 450 to 490 GFLOP/s in place of 220 on two cores (docs/adr/0032).

In float32 torch calls MKL, which gives a processor that is not Intel's no AVX-512: half of its arithmetic or more lies idle.
oneDNN, which torch calls for bfloat16, generates its kernels for whatever the processor has, and is exact to the same rounding.
It is asked for any number of rows, though for a few it is no faster: from two on, a token's outputs do not depend on the others.

Axes: N rows, I input features, O output features.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pomona.backbone.speed.base import SpeedUp, speed_ups

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def product(
    x: Float[Tensor, "... I"], weight_OI: Float[Tensor, "O I"], bias_O: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "... O"]:
    """`x W' + b`, as `F.linear` has it; without gradient.

    Args:
        x: any leading axes.
        weight_OI: may be a transposed view.
        bias_O: or None.
    """
    return _onednn(x, weight_OI, bias_O) if _suits_onednn(x, weight_OI) else F.linear(x, weight_OI, bias_O)


class FrozenLinear(nn.Linear):
    """An `nn.Linear` whose weight is not trained: its product by whichever library is faster, differentiable by `x` alone.

    Where the weight is to be trained after all, it is an `nn.Linear` and nothing more.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`x W' + b`."""
        trained = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        if trained or not _suits_onednn(input, self.weight):
            return super().forward(input)
        if torch.is_grad_enabled() and input.requires_grad:
            return _Product.apply(input, self.weight, self.bias)  # pyright: ignore[reportReturnType]
        return _onednn(input, self.weight, self.bias)


@speed_ups.register("frozen_products")
@dataclass(frozen=True)
class FrozenProducts(SpeedUp):
    """Products with frozen weights are oneDNN's in place of MKL's."""

    changes_model = True

    def suits(self, model: PreTrainedModel) -> bool:
        """See `SpeedUp.suits`: on a CPU, where `onednn_is_faster`."""
        return model.device.type == "cpu" and onednn_is_faster()

    def prepare(self, model: nn.Module) -> None:
        """See `SpeedUp.prepare`."""
        freeze_linear_modules(model)


def freeze_linear_modules(model: nn.Module) -> None:
    """Turn every plain `nn.Linear` into a `FrozenLinear` where that may be faster. Weights stay where and what they are."""
    for module in model.modules():
        if type(module) is nn.Linear and _is_onednn_s(module.weight):
            module.__class__ = FrozenLinear


@functools.cache
def onednn_is_faster() -> bool:
    """Whether float32 products on this processor are oneDNN's rather than MKL's: decided by what it is, so that runs repeat."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return _has_idle_avx512(capabilities) and torch.backends.cpu.get_cpu_capability() == "AVX512" and _onednn_works()


def _has_idle_avx512(capabilities: Mapping[str, Any]) -> bool:
    # SSE4a is AMD's alone: torch tells no vendor.
    return bool(capabilities.get("avx512_f") and capabilities.get("sse4a"))


@torch.no_grad()
def _onednn_works() -> bool:
    """Whether this build of torch has the operation, and it means what it should. It is what torch's own compiler calls."""
    x, weight, bias = (torch.arange(float(n)) for n in (9, 6, 2))
    x, weight = x.view(-1, 3), weight.view(2, 3)
    try:
        return torch.equal(_onednn(x, weight, bias), F.linear(x, weight, bias))  # small whole numbers, so exact
    except (AttributeError, RuntimeError, TypeError):
        return False


def _suits_onednn(x: Tensor, weight_OI: Tensor) -> bool:
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() > 0
        and _is_onednn_s(weight_OI)
        and not torch.is_autocast_enabled("cpu")
    )


def _is_onednn_s(weight_OI: Tensor) -> bool:
    return weight_OI.dtype == torch.float32 and weight_OI.device.type == "cpu" and onednn_is_faster()


def _onednn(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight_OI)
        return _onednn(x, weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (weight_OI,) = ctx.saved_tensors
        return _onednn(dy, weight_OI.T, None), None, None
