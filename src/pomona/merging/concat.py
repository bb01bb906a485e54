"""Merge by concatenation: exact, with the sum of the ranks as its rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from pomona.adapters.factored_svd import concatenated
from pomona.adapters.factors import Factors
from pomona.errors import InputError
from pomona.merging.base import MergeMethod, merge_methods


@merge_methods.register("concat")
@dataclass(frozen=True)
class Concat(MergeMethod):
    """Stack the factors: exactly the weighted sum of the deltas, with rank sum_k R_k.

    `A = [w_1 s_1 A_1; ...; w_n s_n A_n]`, `B = [B_1 ... B_n]`, so `B A = sum_k w_k s_k B_k A_k = delta*`, without cross terms.
    Weights may be negative. PEFT calls this `cat`.
    """

    identity: ClassVar[Mapping[str, object] | None] = {}

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`.

        Raises:
            InputError: `rank` is below sum_k R_k, the rank of a concatenation.
        """
        total = sum(one.rank for one in factors)
        if rank is not None and rank < total:
            raise InputError(f"concat gives rank {total}, not a smaller rank", field="rank", value=rank, fix="Use method svd")
        return Factors(*concatenated(factors, weights, torch.float32))
