"""The interface of a merge method: from several adapters' factors of one module to one pair of factors.

Axes: R rank, I input features, O output features; k counts the adapters that have the module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from pomona.adapters.factors import Factors
from pomona.registry import Registry


class MergeMethod(ABC):
    """A static merge. Subclasses are frozen dataclasses of hyperparameters, one per file, registered in `merge_methods`."""

    identity: ClassVar[Mapping[str, object] | None]
    """The parameters with which one adapter of weight 1 merges to itself; None: there are none."""
    repeats: ClassVar[bool] = True
    """Whether an adapter that is given twice merges to a multiple of its own merge, under `identity` where it has parameters."""

    @abstractmethod
    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """Merge one module.

        Args:
            factors: one or more, with the same O and I, any floating dtypes, scalings and (unless the method restricts them) ranks
                >= 1.
            weights: w_k, finite and not 0, one for each of `factors`; they are not normalised.
            rank: the largest allowed rank of the result, >= 1; None: the method's default.
            generator: the module's own random stream; the only source of randomness.

        Returns:
            fp32 factors with scaling 1, on the device of the first; a `Truncated` with the lost part if the rank may truncate the
            method's full result.

        Raises:
            InputError: the method is not defined for these ranks, or cannot reach `rank`.
        """


merge_methods: Registry[MergeMethod] = Registry("merge method")
