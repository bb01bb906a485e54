"""What every fit over prune ratios shares: the scale from -1 to 1, and when what was fitted is within the noise."""

from __future__ import annotations

import numpy as np

Array = np.ndarray

POINTS = 25
"""Of a fitted curve, as an answer has it."""

EDGE = 1e-6
"""An optimum this near to the end of what was tried, on the scale from -1 to 1, may as well lie beyond it."""

_FLAT_LEVEL = 0.05


def unit(prune_ratios: Array, low: float, high: float) -> Array:
    """Ratios on the scale on which `low` is -1 and `high` is 1."""
    return (2 * prune_ratios - low - high) / (high - low)


def ratio(u: Array, low: float, high: float) -> Array:
    """The inverse of `unit`, kept within [low, high]."""
    return np.clip((low + high) / 2 + u * (high - low) / 2, low, high)


def within_noise(spread_S: Array) -> bool:
    """Whether more than 5 % of the spreads under random signs reach the first, which is the one that was seen."""
    return bool(np.mean(spread_S >= spread_S[0] * (1 - 1e-9)) > _FLAT_LEVEL)
