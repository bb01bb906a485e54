"""Data parallelism: every rank trains on its own share of a step, and sums are joined. One process alone is rank 0 of 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def rank() -> int:
    """This process's number, in [0, world_size())."""
    return dist.get_rank() if _is_parallel() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if _is_parallel() else 1


@torch.no_grad()
def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all ranks, in place: one exchange for all tensors of one dtype and device.

    Args:
        tensors: of the same shapes, dtypes and order on every rank.
    """
    if world_size() == 1:
        return
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        alike.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in alike.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        for tensor, total in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(total.view_as(tensor))


def share(items: Sequence[T]) -> Sequence[T]:
    """This rank's share of `items`: every `world_size()`-th, from its own number on. The shares of all ranks are all items."""
    return items[rank() :: world_size()]


def same_on_all_ranks(value: T) -> T:
    """Rank 0's value, on every rank: what decides how a run goes on must not differ by a rounding."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def _is_parallel() -> bool:
    return dist.is_available() and dist.is_initialized()
