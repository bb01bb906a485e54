"""What a merge method is: the factors of one module, from several adapters, in; one pair of factors out.

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
    """A static merge. Subclasses are frozen dataclasses of hyperparameters, one a file, registered in `merge_methods`."""

    identity: ClassVar[Mapping[str, object] | None]
    """The parameters under which one adapter of weight 1 merges to itself; None: by its definition it never does."""

    @abstractmethod
    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """Merge one module.

        Args:
            factors: one or more, of one O and I, of any floating dtypes, scalings and (unless the method says so) ranks >= 1.
            weights: w_k, finite and not 0, one for each of `factors`; they are not normalised.
            rank: the largest rank that the result may have, >= 1; None: what the method does by itself.
            generator: the module's own random stream; the only source of randomness.

        Returns:
            fp32 factors with scaling 1, on the device of the first; as `Truncated` where a rank may leave out a part of the
            method's own result, with what it leaves out.

        Raises:
            InputError: the method is not defined for these ranks, or cannot keep to `rank`.
        """


merge_methods: Registry[MergeMethod] = Registry("merge method")
