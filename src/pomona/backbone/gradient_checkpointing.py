"""Gradient checkpointing: the layers' activations are not kept for the backward pass, which computes them again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from pomona.backbone.load import Backbone
from pomona.backbone.speed.packing import Packing, packed_attention
from pomona.errors import InputError


@contextmanager
def gradient_checkpointing(backbone: Backbone) -> Iterator[None]:
    """Within the block each layer keeps its input alone, and runs again in the backward pass, with the same dropout.

    Gradients are those without it. Passes without gradient (dev losses, probes, generation) stay as they are.

    transformers' own switch works only on layers in training mode, and so turns on the dropout that some models have between
    the modules of a layer. The frozen model stays in eval mode here: the layers that transformers marks as fit for this are
    wrapped by hand.

    Args:
        backbone: the model; adapters may be attached and detached within the block.

    Raises:
        InputError: the model has no layers that can be computed again.
    """
    layers = _layers(backbone.model)
    if not layers:
        raise InputError(
            "this model's layers cannot be computed again in the backward pass",
            field="tuning.gradient_checkpointing",
            value=True,
            fix="Set it to false, and lower tuning.batch_size where memory is short",
        )
    # A forward pass that somebody put on a layer itself stands in its `vars`, and goes back there.
    before = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        with packed_attention(backbone.model) if Packing in backbone.speed else nullcontext():
            yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


def _layers(model: nn.Module) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
