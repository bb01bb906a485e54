"""The contract of an engine: what a training step needs of the machine, and nothing else.

The loop, the statistics and the probes call these methods alone, so a run on other hardware or with another distribution library
is one new subclass. Every rank calls the methods that exchange data (`sum`, `agree`, `gather`) at the same places.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


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
    def agree(self, value: T) -> T:
        """The value of rank 0, on every rank: a rounding must not lead two ranks to different decisions."""

    @abstractmethod
    def gather(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor of which each rank may hold a part, for a checkpoint."""

    @abstractmethod
    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass, which sets its precision."""
