"""A frozen model that lies over several devices: each rank holds a part of every layer's weights (FSDP2, torch's `fully_shard`).

A layer's weights come together for its forward pass, and again for its backward pass, and are dropped afterwards. Embeddings, the
last norm and the output head are whole on every rank, as are adapters, which are attached later and are not sharded.
"""

from __future__ import annotations

import torch
from torch import nn

from pomona.errors import InputError


def shard(model: nn.Module, place: torch.device, world_size: int) -> None:
    """Divide the weights of the model's layers among the ranks, layer by layer; every rank has loaded all of them.

    Args:
        model: frozen, in the host's memory; the rest of it is for the caller to move.
        place: the device of this rank, which then holds its part of the layers.
        world_size: number of ranks.

    Raises:
        InputError: transformers does not mark the model's layers, or the model is quantised.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers.modeling_layers import GradientCheckpointingLayer

    from pomona.backbone.quantised import quantised_bits

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers or any(map(quantised_bits, model.modules())):
        raise InputError(
            "this model is quantised, or has no layers that could be sharded",
            field="model",
            value=type(model).__name__,
            fix="Launch without --use_fsdp",
        )
    mesh = init_device_mesh(place.type, (world_size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)


def is_sharded(weight: torch.Tensor) -> bool:
    """Whether the rank holds a part of the weight alone."""
    from torch.distributed.tensor import DTensor

    return isinstance(weight, DTensor)
