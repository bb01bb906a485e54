"""One module's dense delta a block of rows at a time, for the methods that are defined entry by entry.

Axes: R rank, I input features, O output features, N the rows of one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors


@dataclass(frozen=True, eq=False)
class DeltaBlocks:
    """The blocks of rows of `delta_OI = s B A` in fp32. Every walk computes them again, bit for bit the same.

    Args:
        factors: one adapter's update of the module.
    """

    factors: Factors

    def __iter__(self) -> Iterator[Float[Tensor, "N I"]]:
        return (block_NI for _, block_NI in self.factors.delta_blocks())
