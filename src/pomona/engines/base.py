"""The contract of an engine: what a training step needs of the machine, and nothing else.

The loop, the statistics and the probes call these methods alone, so a run on other hardware or with another distribution library
is one new subclass. Every rank calls the methods that exchange data (`sum`, `broadcast`, `agree`, `map`, `on_main`, `gather`) at
the same places.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")


class Engine(ABC):
    """Runs a step: alone, or as one of several ranks that each take a share of every batch."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """The number of this process, in [0, world_size)."""

    @property
    @abstractmethod
    def world_size(self) -> int:
        """The number of processes that work together."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files: one of all ranks does."""
        return self.rank == 0

    @abstractmethod
    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The part of `items` that this rank processes; the shares of all ranks together are all items, each once."""

    def share_of_passes(self, items: Sequence[T]) -> Sequence[T]:
        """The items that this rank makes forward passes of, for sums over all ranks that count each item once (`sum_of_passes`)."""
        return items if self.moves_together else self.share(items)

    def sum_of_passes(self, tensors: Sequence[Tensor]) -> None:
        """`sum` over the passes of `share_of_passes`: if every rank made all passes, those of rank 0 count."""
        if self.moves_together and not self.is_main:
            for tensor in tensors:
                tensor.zero_()
        self.sum(tensors)

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to the parameters' `grad`."""

    @abstractmethod
    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks, in place.

        Args:
            tensors: of the same shapes, dtypes and order on every rank.
        """

    @abstractmethod
    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Set each tensor to its values on rank 0, in place.

        Args:
            tensors: of the same shapes, dtypes and order on every rank.
        """

    @abstractmethod
    def map(self, items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> list[R]:
        """The results of `work` on all items, in the items' order, the same on every rank.

        Args:
            items: the same on every rank.
            work: gives one result for each item that it is called with; it must not call the engine. A rank calls it with its
                share of the items, or not at all if there are fewer items than ranks.
        """

    @abstractmethod
    def on_main(self, work: Callable[[], T]) -> T:
        """What `work` returns on rank 0, on every rank; the other ranks wait. Rank 0 begins when every rank has arrived.

        An engine is a single process within `work`, so that nothing in it waits for the other ranks.

        Args:
            work: reads or writes files that the ranks share, or takes a decision that depends on them.

        Raises:
            PomonaError: `work` raised it; every rank raises it.
        """

    @abstractmethod
    def agree(self, value: T) -> T:
        """The value of rank 0, on every rank: a rounding must not lead two ranks to different decisions."""

    @abstractmethod
    def gather(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor of which each rank may hold a part, for a checkpoint."""

    @abstractmethod
    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The context of a forward pass on a device, which sets its precision."""

    @property
    def mixed_precision(self) -> str | None:
        """The name of the precision of activations, if `autocast` changes it; it shapes the results of a run."""
        return None

    @property
    def moves_together(self) -> bool:
        """Whether a forward or backward pass of one rank waits for a pass of every other: then all make the same number of them."""
        return False
