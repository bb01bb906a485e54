"""A module's dense update, some rows at a time: all of it is read, and never more than a block of it held.

Axes: R rank, I input features, O output features, b rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors

# 1 MB of fp32, which fits a processor's cache: larger blocks are no faster, much smaller ones are slower.
BLOCK_ENTRIES = 2**18


def widened(factors: Factors) -> Factors:
    """The same factors in one dtype, fp32 or fp64, without gradient."""
    A, B = factors.A.detach(), factors.B.detach()
    dtype = torch.promote_types(torch.promote_types(A.dtype, B.dtype), torch.float32)
    return Factors(A.to(dtype), B.to(dtype), factors.scaling)


def delta_blocks(factors: Factors) -> Iterator[tuple[slice, Float[Tensor, "b I"]]]:
    """Row ranges of `scaling * B @ A`, and those rows. Each block is new: the caller may overwrite it.

    Args:
        factors: both of one dtype.

    Yields:
        The rows' range within O, and the rows, [b, I]; b is 1 at least, and b x I is `BLOCK_ENTRIES` at most where b > 1.
    """
    A_RI = factors.A * factors.scaling
    block_rows = max(1, BLOCK_ENTRIES // factors.in_features)
    for start in range(0, factors.out_features, block_rows):
        rows = slice(start, min(start + block_rows, factors.out_features))
        yield rows, factors.B[rows] @ A_RI
