"""One rule for every method: a merge whose result is not finite is refused, with the module and the source that is to blame."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from pomona.adapters.compatible import adapter_name
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.measure import delta_norm
from pomona.errors import InputError

NO_CONVERGENCE = torch.linalg.LinAlgError  # pyright: ignore[reportPrivateImportUsage]
"""What a decomposition raises where numbers are too large for it."""
_LARGEST = torch.finfo(torch.float32).max


def is_finite(factors: Factors) -> bool:
    """Whether all entries of the factors are finite, and float32, in which PEFT multiplies them, holds those of their product."""
    largest = _largest(factors)
    if largest <= _LARGEST:
        return True
    if not all(bool(torch.isfinite(side).all()) for side in (factors.A, factors.B)):
        return False
    return delta_norm(factors) <= _LARGEST  # of fp64; an entry is at most the norm


def not_finite(module: str, adapters: Sequence[Adapter], weights: Sequence[float]) -> InputError:
    """The error for a module; it names the source whose weighted update has the largest entries.

    Args:
        module: the module's path.
        adapters: those that are merged.
        weights: w_k of the module.
    """
    sizes = [
        (abs(weight) * _largest(adapter[module]), place)
        for place, (adapter, weight) in enumerate(zip(adapters, weights, strict=True))
        if module in adapter
    ]
    _, place = max(sizes, key=lambda pair: (math.inf if math.isnan(pair[0]) else pair[0], -pair[1]))
    found = adapters[place][module]
    largest = max(float(side.abs().max()) for side in (found.A, found.B))
    problem = f"has entries up to {largest:.4g}: the merge is not finite, or float32 does not hold its update; nothing was written"
    fix = "Leave this adapter out, or use an earlier checkpoint of it"
    return InputError(problem, file=adapter_name(adapters[place], place), field=module, fix=fix)


def _largest(factors: Factors) -> float:
    """At least the largest entry of `s B A`: `|s| R max|A| max|B|`, in fp64; NaN where an entry is."""
    if not factors.rank:
        return 0.0
    return abs(factors.scaling) * factors.rank * math.prod(float(side.abs().max()) for side in (factors.A, factors.B))
