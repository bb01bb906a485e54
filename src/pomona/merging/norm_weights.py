"""The weight rule `nan`: an adapter's merge weight is inverse to the norm of its update (NAN).

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pomona.adapters.factors import Adapter, Factors
from pomona.merging.weights import Weight

WeightRule = Literal["nan"]
"""How merge weights follow from the adapters: `nan`, norm-aware."""


def norm_weights(adapters: Sequence[Adapter], weights: Sequence[Weight]) -> list[Weight]:
    """`w_k c / ||delta_k||`, with c the harmonic mean of the norms: adapters of equal norms keep the given weights w_k.

    So each adapter's weighted update has norm `|w_k| c`. An adapter is one update: its norm is the Frobenius norm over all its
    modules. An adapter without an update keeps its weight and does not count in c, and neither does one of weight 0.

    NAN, arXiv 2505.16148, weights that are proportional to `1 / ||delta_k||`. The factor c is Pomona's: 1 each stays the scale.

    Args:
        adapters: one or more; read once each.
        weights: one for each, as a user gives them.
    """
    scale = harmonic_norm(adapters, weights)
    return [by_norm(adapter, weight, scale) for adapter, weight in zip(adapters, weights, strict=True)]


def harmonic_norm(adapters: Sequence[Adapter], weights: Sequence[Weight]) -> float:
    """The harmonic mean of the norms of those adapters that have an update and a weight other than 0; 1 if there are none."""
    norms = [update_norm(adapter) for adapter, weight in zip(adapters, weights, strict=True) if weight != 0]
    norms = [norm for norm in norms if norm > 0]
    return len(norms) / sum(1 / norm for norm in norms) if norms else 1.0


def by_norm(adapter: Adapter, weight: Weight, scale: float) -> Weight:
    """A weight in any of its forms, times `scale / ||delta||`; unchanged for an adapter without an update."""
    norm = update_norm(adapter)
    return _scaled(weight, scale / norm) if norm > 0 else weight


def update_norm(adapter: Adapter) -> float:
    """The Frobenius norm of an adapter's update over all its modules, without an O x I matrix."""
    return math.sqrt(sum(_squared(adapter[module]) for module in adapter))


def _squared(one: Factors) -> float:
    """`||s B A||_F^2 = s^2 <B^T B, A A^T>`."""
    A_RI, B_OR = one.A.double(), one.B.double()
    return one.scaling**2 * max(0.0, float(((B_OR.T @ B_OR) * (A_RI @ A_RI.T)).sum()))


def _scaled(weight: Any, factor: float) -> Any:
    if isinstance(weight, Mapping):
        return {**weight, "value": _scaled(weight["value"], factor)}
    return weight * factor if isinstance(weight, int | float) else [_scaled(part, factor) for part in weight]
