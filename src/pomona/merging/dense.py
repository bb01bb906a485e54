"""One module's dense delta in blocks of rows, for the element-wise methods.

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
    """The blocks of rows of `delta_OI = s B A` in fp32. Each iteration recomputes them with identical bits.

    Args:
        factors: one adapter's update of the module.
    """

    factors: Factors

    def __iter__(self) -> Iterator[Float[Tensor, "N I"]]:
        return (block_NI for _, block_NI in self.factors.delta_blocks())
