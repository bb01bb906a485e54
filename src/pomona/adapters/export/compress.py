"""Compress every module to a lower rank, with the exact error.

Axes: K kept rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pomona.adapters.factored_svd import factored_svd, stacked
from pomona.adapters.factors import Adapter, Factors
from pomona.errors import InputError


@dataclass(frozen=True)
class Compression:
    """The loss of a compression.

    Args:
        rank: the largest allowed rank.
        error: `||delta - delta_K||_F / ||delta||_F` over all modules together; 0 for an adapter whose deltas are zero.
        worst_module: the module with the largest relative error.
        worst_error: the relative error of this module.
    """

    rank: int
    error: float
    worst_module: str
    worst_error: float


def compress(adapter: Adapter, rank: int) -> tuple[Adapter, Compression]:
    """Each module's best approximation of rank `K = rank`, by a factored SVD; no dense delta is built.

    The error is exact: `||delta - delta_K||_F^2` is the sum of the squares of the singular values left out (Eckart and Young).
    A module with a rank of at most K is kept bit for bit.

    Args:
        adapter: one or more modules.
        rank: K, >= 1.

    Returns:
        The compressed adapter, in memory, and its loss.

    Raises:
        InputError: the rank is below 1, or the adapter has no modules.
    """
    if rank < 1:
        raise InputError("the rank must be at least 1", field="rank", value=rank)
    if len(adapter) == 0:
        raise InputError("the adapter has no modules", fix="Give at least one adapted module")
    kept: dict[str, Factors] = {}
    lost: dict[str, float] = {}
    lost_squared = whole_squared = 0.0
    for module in adapter:
        factors = adapter[module]
        spectrum = factored_svd(*stacked([factors], [1.0]))
        if factors.rank > rank:
            S = spectrum.S_K
            kept[module] = Factors(*type(spectrum)(spectrum.U_OK[:, :rank], S[:rank], spectrum.V_IK[:, :rank]).balanced())
        else:
            S = spectrum.S_K[:0]
            kept[module] = factors
        missing, whole = float(S[rank:].square().sum()), float(spectrum.S_K.square().sum())
        lost[module] = math.sqrt(missing / whole) if whole else 0.0
        lost_squared += missing
        whole_squared += whole
    worst = max(lost, key=lambda module: lost[module])
    error = math.sqrt(lost_squared / whole_squared) if whole_squared else 0.0
    return replace(adapter, factors=kept), Compression(rank, error, worst, lost[worst])
