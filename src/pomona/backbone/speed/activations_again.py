"""Outputs of activation functions are computed again in the backward pass: worth a sixth of a small model's activation memory.

`python -m benchmarks train_memory` measures the peak of a step with it. It costs one elementwise operation a layer.

A gated MLP keeps three wide tensors for its gradient: what goes into the activation function, what comes out, and the gate's other
half. The middle one follows from the first by one elementwise operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pomona.backbone.speed.base import SpeedUp, speed_ups

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAMES = ("act_fn", "act")
"""What transformers calls the activation function of an MLP."""

Again = Callable[[], Tensor]


@speed_ups.register("activations_again")
@dataclass(frozen=True)
class ActivationsAgain(SpeedUp):
    """Outputs of activation functions are not kept for the backward pass. Gradients are the same to the last bit."""

    def suits(self, model: PreTrainedModel) -> bool:
        """See `SpeedUp.suits`: every model; where no module is an activation function, nothing changes."""
        return True

    def training_pass(self, model: nn.Module) -> AbstractContextManager[None]:
        """See `SpeedUp.training_pass`."""
        return activations_again(model)


class _Output(NamedTuple):
    """The latest output of an activation function, and how to make it again. Holding it keeps its memory from being reused."""

    value: Tensor
    again: Again


@contextmanager
def activations_again(model: nn.Module) -> Iterator[None]:
    """Within the block, products with an activation function's output do not keep it. Gradients are the same to the last bit.

    Args:
        model: whose MLPs call a module for their activation function; where they call none, nothing changes.
    """
    latest: list[_Output] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        latest[:] = [_Output(output, partial(_again, module, inputs[0]))] if torch.is_grad_enabled() else []

    def pack(saved: Tensor) -> Tensor | Again:
        if latest and saved.data_ptr() == latest[0].value.data_ptr() and saved.shape == latest[0].value.shape:
            return latest.pop().again
        return saved

    def unpack(packed: Tensor | Again) -> Tensor:
        return packed if isinstance(packed, Tensor) else packed()

    functions = [module for path, module in model.named_modules() if path.rpartition(".")[2] in _NAMES]
    hooks: list[RemovableHandle] = []
    try:
        hooks += [module.register_forward_hook(note) for module in functions]
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield
    finally:
        latest.clear()
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _again(module: nn.Module, x: Tensor) -> Tensor:
    # Not by a call of the module: its hooks are for the forward pass.
    return module.forward(x)
