"""torch alone: one process, or the ranks of `torch.distributed` where it is initialised (data parallelism)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pomona.engines.base import Engine

T = TypeVar("T")


@dataclass(frozen=True)
class Native(Engine):
    """Every rank holds the whole model and all factors; sums of gradients and statistics are exchanged."""

    @property
    def rank(self) -> int:
        """0 where `torch.distributed` is not initialised."""
        return dist.get_rank() if _is_parallel() else 0

    @property
    def world_size(self) -> int:
        """1 where `torch.distributed` is not initialised."""
        return dist.get_world_size() if _is_parallel() else 1

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Every `world_size`-th item, from number `rank` on."""
        return items[self.rank :: self.world_size]

    def backward(self, loss: Tensor) -> None:
        """Torch's own backward pass."""
        loss.backward()

    @torch.no_grad()
    def sum(self, tensors: Sequence[Tensor]) -> None:
        """One exchange for all tensors of one dtype and device."""
        if self.world_size == 1:
            return
        alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for tensor in tensors:
            alike.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for group in alike.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.all_reduce(flat)
            for tensor, total in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def agree(self, value: T) -> T:
        """A broadcast of the pickled value, which comes from a process of the same run."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensor itself: every rank holds the whole of it."""
        return tensor

    def autocast(self) -> AbstractContextManager[object]:
        """No cast: the precision is that of the model and the factors."""
        return nullcontext()


def _is_parallel() -> bool:
    return dist.is_available() and dist.is_initialized()


NATIVE = Native()
"""The engine by default."""
