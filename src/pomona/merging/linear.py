"""Merge by summing factors: small and fast, but not equal to the sum of the deltas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from pomona.adapters.factors import Factors
from pomona.errors import InputError
from pomona.merging.base import MergeMethod, merge_methods


@merge_methods.register("linear")
@dataclass(frozen=True)
class Linear(MergeMethod):
    """Sum the factors. The product has cross terms `B_i A_j`, which no training produced.

    `A = sum_k sign(w_k s_k) sqrt|w_k s_k| A_k`, `B = sum_k sqrt|w_k s_k| B_k`, so
    `B A = delta* + sum_{i != j} sign(w_j s_j) sqrt|w_i s_i w_j s_j| B_i A_j`.
    With unit weights and scalings this is the sum that ALM trains (arXiv 2505.24174); PEFT calls it `linear`. As in PEFT, the
    sign of a negative weight is applied only to A, so that a single adapter with weight -1 is negated.
    """

    identity: ClassVar[Mapping[str, object] | None] = {}

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`.

        Raises:
            InputError: the ranks differ, or `rank` is below them.
        """
        ranks = [one.rank for one in factors]
        if len(set(ranks)) > 1:
            raise InputError("linear requires factors of equal ranks", field="rank", value=ranks, fix="Use method svd or concat")
        if rank is not None and rank < ranks[0]:
            raise InputError(f"linear always gives rank {ranks[0]}", field="rank", value=rank, fix="Use method svd")
        shares = [weight * one.scaling for one, weight in zip(factors, weights, strict=True)]
        A_RI = _weighted_sum([one.A for one in factors], [math.copysign(math.sqrt(abs(share)), share) for share in shares])
        B_OR = _weighted_sum([one.B for one in factors], [math.sqrt(abs(share)) for share in shares])
        return Factors(A_RI, B_OR)


def _weighted_sum(matrices: Sequence[torch.Tensor], shares: Sequence[float]) -> torch.Tensor:
    total = matrices[0].float() * shares[0]
    for matrix, share in zip(matrices[1:], shares[1:], strict=True):
        total.add_(matrix, alpha=share)
    return total
