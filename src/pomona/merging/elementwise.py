"""The base of the element-wise merges: make each adapter's update sparse, then combine the updates entry by entry.

Axes: R rank, I input features, O output features, N rows of a block; k counts the adapters.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors, row_blocks
from pomona.errors import InputError
from pomona.merging.base import MergeMethod
from pomona.merging.content_order import content_order, streams
from pomona.merging.dense import DeltaBlocks
from pomona.merging.sign_election import weighted_sum
from pomona.merging.truncate import truncate

Domain = Literal["deltas", "factors"]


class ElementwiseMerge(MergeMethod):
    """An element-wise merge; `on` selects the matrices.

    - `deltas`, the published definition: `tau_k = sparsify(s_k B_k A_k)`, the merged matrix is `combine(w_k tau_k)`, and the
      result is its best approximation of a rank: `rank`, or by default the largest R_k, at most min(O, I). A sparse matrix has
      full rank, so the truncation loses something. One module's merged matrix is built, in fp32, from blocks of rows.
    - `factors`, PEFT's rule: the same operations on all A_k and on all B_k separately, with the weights
      `sign(w_k s_k) sqrt|w_k s_k|` for A and `sqrt|w_k s_k|` for B, which do not count in an election. Small and fast, but
      the product has cross terms `B_i A_j`. PEFT uses the method's name without a suffix for it (`_svd` means deltas).
    """

    on: Domain = "deltas"

    @abstractmethod
    def sparsifier(
        self, blocks: Iterable[Float[Tensor, "_ I"]], entries: int, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        """A function that makes one adapter's update sparse, called once with each block, in order.

        Args:
            blocks: the update in blocks of whole rows, fp32; can be iterated any number of times.
            entries: number of entries in all blocks.
            generator: this adapter's own random stream, on the CPU.
        """

    def combine(self, parts: Iterable[Float[Tensor, "N I"]], weights: Sequence[float]) -> Float[Tensor, "N I"]:
        """Combine the sparse updates of all adapters: their weighted sum, unless the method elects signs.

        `weights` scale the parts, but do not count in the election.
        """
        return weighted_sum(parts, weights)

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`.

        Raises:
            InputError: with `on="factors"`: the ranks differ, or `rank` is below them.
        """
        order = content_order(factors, weights)
        sorted_factors, sorted_weights = [factors[k] for k in order], [weights[k] for k in order]
        merge = self._merge_factors if self.on == "factors" else self._merge_deltas
        return merge(sorted_factors, sorted_weights, rank, streams(generator, len(order)))

    def _merge_deltas(
        self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generators: Sequence[torch.Generator]
    ) -> Factors:
        O, I = factors[0].out_features, factors[0].in_features  # noqa: E741
        updates = [DeltaBlocks(one) for one in factors]
        sparsifiers = [self.sparsifier(one, O * I, stream) for one, stream in zip(updates, generators, strict=True)]
        walks = [iter(one) for one in updates]

        def next_parts() -> Iterator[Tensor]:
            for sparsify, walk, weight in zip(sparsifiers, walks, weights, strict=True):
                yield sparsify(next(walk)).mul_(weight)

        merged_OI = torch.empty(O, I, device=factors[0].A.device)
        for rows in row_blocks(O, I):
            merged_OI[rows] = self.combine(next_parts(), [1.0] * len(weights))
        return truncate(merged_OI, rank or max(one.rank for one in factors)).factors()

    def _merge_factors(
        self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generators: Sequence[torch.Generator]
    ) -> Factors:
        ranks = [one.rank for one in factors]
        fix = "Use on=deltas"
        if len(set(ranks)) > 1:
            raise InputError("on=factors requires factors of equal ranks", field="rank", value=ranks, fix=fix)
        if rank is not None and rank < ranks[0]:
            raise InputError(f"on=factors always gives rank {ranks[0]}", field="rank", value=rank, fix=fix)
        shares = [weight * one.scaling for one, weight in zip(factors, weights, strict=True)]
        roots = [math.sqrt(abs(share)) for share in shares]

        def merged(matrices: Sequence[Tensor], sides: Sequence[float]) -> Tensor:
            wide = [matrix.to(torch.float32) for matrix in matrices]
            parts = (self.sparsifier([X], X.numel(), stream)(X) for X, stream in zip(wide, generators, strict=True))
            return self.combine(parts, sides)

        signed = [math.copysign(root, share) for root, share in zip(roots, shares, strict=True)]
        return Factors(merged([one.A for one in factors], signed), merged([one.B for one in factors], roots))
