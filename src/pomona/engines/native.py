"""torch alone: one process, or the ranks of `torch.distributed` where it is initialised (data parallelism)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pomona.engines.base import Engine
from pomona.errors import PomonaError

T = TypeVar("T")
R = TypeVar("R")
_alone = False
"""Whether this process is at work for all ranks, which wait for it (`on_main`)."""


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

    @torch.no_grad()
    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """One exchange for each tensor: it is done once a run."""
        if self.world_size > 1:
            for tensor in tensors:
                sent = tensor.contiguous()
                dist.broadcast(sent, 0)
                tensor.copy_(sent)

    def map(self, items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> list[R]:
        """Every rank works on its `share`; the pickled results come from processes of the same run."""
        if self.world_size == 1:
            return list(work(items))
        mine = self.share(items)
        parts: list[Sequence[R]] = [[]] * self.world_size
        dist.all_gather_object(parts, list(work(mine)) if mine else [])
        return [parts[place % self.world_size][place // self.world_size] for place in range(len(items))]

    def on_main(self, work: Callable[[], T]) -> T:
        """A broadcast of the pickled result or error. An error of another kind ends rank 0 alone, and with it the others."""
        if self.world_size == 1:
            return work()
        dist.all_reduce(torch.zeros(1))
        box: list[T | PomonaError | None] = [None]
        if self.is_main:
            try:
                with _working_alone():
                    box = [work()]
            except PomonaError as error:
                box = [error]
        mine = box[0]
        dist.broadcast_object_list(box)
        found = mine if self.is_main else box[0]
        if isinstance(found, PomonaError):
            raise found
        return found  # pyright: ignore[reportReturnType]

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

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """No cast: the precision is that of the model and the factors."""
        return nullcontext()


def _is_parallel() -> bool:
    return dist.is_available() and dist.is_initialized() and not _alone


@contextmanager
def _working_alone() -> Iterator[None]:
    """Within the block this process, which is rank 0, is the only one."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


NATIVE = Native()
"""The engine by default."""
