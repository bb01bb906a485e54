"""The shapes that a loss may have as a function of the prune ratio: flat, lines, parabolas, cliffs, knees, jumps, two cliffs.

Axes: M ratios, F features, G shapes of one size, D features of a shape.

Each shape is a linear combination of a few features: the ratio p, its square, and for each place c a hinge `max(0, p - c)`, where
a cliff begins, the hinge's square, where a knee does, and a jump `p > c`. A kind of shape has one weight, shared out among its
places.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

Array = np.ndarray

_PLACES = 93
_COARSER = 4  # pairs of cliffs are placed on every fourth place

_FLAT, _LINE, _PARABOLA, _CLIFF, _KNEE, _JUMP, _BENT_CLIFF, _TWO_CLIFFS = 1.0, 1.0, 3.0, 4.0, 0.5, 0.5, 0.5, 1.5
"""How likely each kind of shape is before any probe, up to a factor; chosen on other draws of the truths of `controller_toy`."""


class Shapes(NamedTuple):
    """Shapes with equally many features.

    Args:
        features: which features each has, [G, D].
        log_weight: the logarithm of how likely each is before any probe, up to a constant, [G].
    """

    features: Int[Array, "G D"]
    log_weight: Float64[Array, " G"]


def features(prune_ratios: Float64[Array, " M"], highest: float) -> Float64[Array, "M F"]:
    """`u`, `u^2`, hinges, their squares and jumps at each ratio, with u from -1 at ratio 0 to 1 at the highest one.

    Args:
        prune_ratios: in [0, 1].
        highest: the highest ratio allowed, > 0.
    """
    u = 2 * prune_ratios / highest - 1
    places = 2 * np.linspace(0.05, 0.97, _PLACES) - 1
    beyond = u[:, None] - places
    hinges = np.maximum(0.0, beyond)
    return np.concatenate([np.stack([u, u * u], axis=1), hinges, hinges**2, (beyond > 0).astype(np.float64)], axis=1)


def all_shapes() -> tuple[Shapes, ...]:
    """All shapes, those with equally many features together."""
    hinges = np.arange(_PLACES) + 2
    few = hinges[::_COARSER]
    pairs = np.array([(a, b) for a in few for b in few if a < b])
    none = np.zeros((1, 0), dtype=np.int64)
    both = np.array([[0, 1]])
    cliffs = np.stack([np.zeros_like(hinges), hinges], axis=1)
    knees, jumps = cliffs + np.array([0, _PLACES]), cliffs + np.array([0, 2 * _PLACES])
    bent = np.stack([np.zeros_like(hinges), np.ones_like(hinges), hinges], axis=1)
    two = np.concatenate([np.zeros((len(pairs), 1), dtype=np.int64), pairs], axis=1)
    return (
        _weighted((none, _FLAT)),
        _weighted((np.array([[0]]), _LINE)),
        _weighted((both, _PARABOLA), (cliffs, _CLIFF), (knees, _KNEE), (jumps, _JUMP)),
        _weighted((bent, _BENT_CLIFF), (two, _TWO_CLIFFS)),
    )


def _weighted(*kinds: tuple[Array, float]) -> Shapes:
    """Kinds of shapes of one size, each with its weight shared out evenly."""
    weights = np.concatenate([np.full(len(rows), weight / len(rows)) for rows, weight in kinds])
    return Shapes(np.concatenate([rows for rows, _ in kinds]), np.log(weights))
