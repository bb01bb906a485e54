"""Random thinning that keeps the expected value."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def thinned(
    values: Float[Tensor, "N I"], keep_probability: float | Float[Tensor, "N I"], generator: torch.Generator
) -> Float[Tensor, "N I"]:
    """`value / p` with probability p, else 0, independently for each entry: the expected value is `value`.

    Args:
        values: fp32, on any device.
        keep_probability: p in (0, 1], one for all or one for each entry.
        generator: on the CPU, so that a seed gives the same mask on every device.
    """
    kept = torch.rand(values.shape, generator=generator).to(values.device).lt_(keep_probability)
    return kept.mul_(values).div_(keep_probability)
