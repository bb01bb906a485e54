"""Functions of the methods that merge the adapters' coordinates in a common basis.

Axes: M and N the two sides of the coordinates, K singular values; k counts the adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.merging.largest import Largest

Combine = Literal["ties", "sum"]
"""How coordinates are merged: TIES (trim, elect signs, mean of what agrees), or their sum, which gives back delta*."""

FP32_ROUNDING = torch.finfo(torch.float32).eps
"""The share of the largest singular value below which fp32 factors cannot tell a direction from their own rounding."""

# Coordinates come from an fp64 decomposition: a sum this far below the largest entry is a rounding error without a sign.
_SIGNLESS = 1e-12


def combined(parts: Sequence[Float[Tensor, "M N"]], combine: Combine, density: float) -> Float[Tensor, "M N"]:
    """Merge the adapters' weighted coordinates, one fp64 [M, N] matrix for each adapter.

    TIES (Yadav et al. 2023, arXiv 2306.01708): each part keeps its `floor(density * M * N)` entries of largest magnitude in fp32,
    at least one (the cores of two rank-one adapters have four entries), ties in the order of their index; each entry's sign is that
    of the parts' sum; the result is the mean over the parts whose entry is not 0 and has this sign. A sum of 0 has no sign and
    gives 0 (method `ties` counts it as +). So a change of sign of a row or column in all parts only changes the sign of this row or
    column in the result, and the arbitrary signs of singular vectors have no effect.
    """
    if combine == "sum":
        return torch.stack(list(parts)).sum(dim=0)
    stack_kMN = torch.stack([_trimmed(part, density) for part in parts])
    total_MN = stack_kMN.sum(dim=0)
    sign_MN = total_MN.sign().masked_fill(total_MN.abs() <= _SIGNLESS * stack_kMN.abs().amax(), 0)
    agrees_kMN = (stack_kMN.sign() == sign_MN) & (sign_MN != 0)
    return (stack_kMN * agrees_kMN).sum(dim=0) / agrees_kMN.sum(dim=0).clamp(min=1)


def count_nonzero(S_K: Float[Tensor, " K"], share: float) -> int:
    """The number of singular values, largest first, above `share` times the first; 0 if all are 0."""
    return int(S_K.gt(share * S_K[:1]).sum())


def _trimmed(part_MN: Float[Tensor, "M N"], density: float) -> Float[Tensor, "M N"]:
    rounded_MN = part_MN.float()
    return part_MN.masked_fill(~Largest([rounded_MN], max(1, int(density * part_MN.numel())))(rounded_MN), 0.0)
