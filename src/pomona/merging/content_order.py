"""An order of adapters by their content, so that the order of the arguments has no effect."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors


def content_order(factors: Sequence[Factors], weights: Sequence[float]) -> list[int]:
    """The indices of `factors`, sorted by a key of their content, then by scaling and weight.

    Rounding and random masks depend on the order of the adapters; after sorting, any permutation of the same adapters gives the
    same bits. The key is `u^T X v` in fp64 for both factors with fixed random vectors u and v: equal for equal values in any
    dtype, and different for different values, except with negligible probability.
    """
    keys = [(_probe(one.A), _probe(one.B), one.scaling, weight) for one, weight in zip(factors, weights, strict=True)]
    return sorted(range(len(factors)), key=keys.__getitem__)


def streams(generator: torch.Generator, count: int) -> list[torch.Generator]:
    """`count` CPU generators with seeds drawn from `generator`."""
    seeds = torch.randint(2**63 - 1, (count,), generator=generator).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _probe(X: Float[Tensor, "N I"]) -> float:
    N, I = X.shape  # noqa: E741
    u = torch.arange(1, N + 1, dtype=torch.float64, device=X.device).sqrt_().cos_()
    v = torch.arange(1, I + 1, dtype=torch.float64, device=X.device).sqrt_().sin_()
    return float(u @ (X.double() @ v))
