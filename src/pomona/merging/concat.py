"""Merge by concatenation: exact, at the price of the sum of the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pomona.adapters.factors import Factors
from pomona.errors import InputError
from pomona.merging.base import MergeMethod, merge_methods


@merge_methods.register("concat")
@dataclass(frozen=True)
class Concat(MergeMethod):
    """Stack the factors: exactly the weighted sum of the deltas, with rank sum_k R_k.

    `A = [w_1 s_1 A_1; ...; w_n s_n A_n]`, `B = [B_1 ... B_n]`, so `B A = sum_k w_k s_k B_k A_k = delta*`, without cross terms.
    Weights may be negative or zero; an adapter of weight 0 keeps its (zero) rows. PEFT calls this `cat`.
    """

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`.

        Raises:
            InputError: `rank` is below sum_k R_k: concatenation cannot make it smaller.
        """
        total = sum(one.rank for one in factors)
        if rank is not None and rank < total:
            raise InputError(
                f"concat gives rank {total} and cannot keep to a smaller one", field="rank", value=rank, mend="Use method svd"
            )
        A_RI = torch.cat([one.A.float() * (weight * one.scaling) for one, weight in zip(factors, weights, strict=True)], dim=0)
        B_OR = torch.cat([one.B.float() for one in factors], dim=1)
        return Factors(A_RI, B_OR)
