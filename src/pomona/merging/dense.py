"""One module's dense delta a block of rows at a time, for the methods that are defined entry by entry.

Axes: R rank, I input features, O output features, N the rows of one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors

# About 1 MB in fp32: fits a core's cache, and does not depend on the machine, so that neither do random masks nor the result.
_BLOCK_ENTRIES = 2**18


def row_blocks(out_features: int, in_features: int) -> Iterator[slice]:
    """Slices that cover the rows of an O x I matrix in order, each of about 2^18 entries and at least one row."""
    rows = max(1, _BLOCK_ENTRIES // in_features)
    for start in range(0, out_features, rows):
        yield slice(start, min(start + rows, out_features))


@dataclass(frozen=True, eq=False)
class DeltaBlocks:
    """The blocks of rows of `delta_OI = s B A` in fp32. Every walk computes them again, bit for bit the same.

    Args:
        factors: one adapter's update of the module.
    """

    factors: Factors

    def __iter__(self) -> Iterator[Float[Tensor, "N I"]]:
        A_RI, B_OR = self.factors.A.to(torch.float32), self.factors.B.to(torch.float32)
        for rows in row_blocks(self.factors.out_features, self.factors.in_features):
            yield (B_OR[rows] @ A_RI).mul_(self.factors.scaling)
