"""How far a search's mean losses may lie from what endless examples would show, estimated from how the examples differ.

Axes: M measurements, K contrasts, V settings of the noise that are tried.

Two things move a measured mean. Each probe has a noise of its own, whose deviation may grow with the prune ratio p. And examples
differ in how they bear pruning, again and again: example i has an effect `a_i q + b_i (q^2 - 1/2)`, with q from -1 to 1 over the
allowed range, which more rounds do not average out. Their variances are those of highest likelihood given how the examples'
contrasts scatter around their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from pomona.control.readings import Readings

Array = np.ndarray

_GROWTHS = (0.0, 2.0, 8.0)
"""How much larger a probe's deviation is at p = 1 than at p = 0, less 1."""

_SHARES = np.concatenate([[0.0], 10 ** np.arange(-1, 7.5, 0.5)])
"""Variances of the lasting effects that are tried, in units of a probe's own."""

_FLOOR = 1e-3
"""The least deviation of a probe, as a share of the largest mean contrast: without it equal examples would look infinitely sure."""


class Noise(NamedTuple):
    """Of one example's loss; means over n examples have 1 / n of the variances.

    Args:
        variance: of a probe at p = 0, > 0.
        growth: a probe's deviation at p is `1 + growth p` times that at p = 0.
        lasting: variances of a_i and b_i, [2].
        freedom: degrees of freedom of the estimate, >= 1.
    """

    variance: float
    growth: float
    lasting: Float64[Array, " 2"]
    freedom: int

    def probe(self, prune_ratios: Array) -> Array:
        """The variance of a probe at each ratio, lasting effects left out."""
        return self.variance * (1 + self.growth * prune_ratios) ** 2


def lasting_features(prune_ratios: Array, low: float, high: float) -> Float64[Array, "M 2"]:
    """`q` and `q^2 - 1/2`, q from -1 at the lowest ratio allowed to 1 at the highest."""
    q = (2 * prune_ratios - low - high) / (high - low)
    return np.stack([q, q * q - 0.5], axis=1)


def estimate_noise(found: Sequence[Readings], low: float, high: float) -> Noise:
    """The noise of highest likelihood.

    Args:
        found: one or more, as `readings` has them.
        low: lowest ratio allowed.
        high: highest ratio allowed.

    Returns:
        Where no two examples saw the same, all that was seen may be noise: the mean square of the contrasts, one degree of freedom.
    """
    largest = max(float(np.abs(one.mean).max()) for one in found)
    freedom = sum(one.n - 1 for one in found)
    if freedom == 0:
        square = float(np.mean(np.concatenate([one.mean for one in found]) ** 2))
        return Noise(max(square, np.finfo(float).tiny), 0.0, np.zeros(2), 1)
    least = max((_FLOOR * largest) ** 2, np.finfo(float).tiny)
    fits = [_most_likely(found, growth, least, low, high) for growth in _GROWTHS]
    _, variance, lasting, growth = max(fits, key=lambda fit: fit[0])
    return Noise(variance, growth, lasting, freedom)


def _most_likely(
    found: Sequence[Readings], growth: float, least: float, low: float, high: float
) -> tuple[float, float, Array, float]:
    """For one growth the best log likelihood, the probe's variance, the lasting effects' variances, and the growth.

    With the probe's variance 1 a reading's covariance is `I + U R U'` once it is whitened, R the two shares; so determinant and
    inverse come from 2 x 2 matrices, for all V pairs of shares at once. The best variance of a probe is then a mean square,
    or the least one.
    """
    share_V2 = np.stack(np.meshgrid(_SHARES, _SHARES, indexing="ij"), axis=-1).reshape(-1, 2)
    root_V2 = np.sqrt(share_V2)
    log_det, square, count, constant = np.zeros(len(share_V2)), np.zeros(len(share_V2)), 0, 0.0
    for one in found:
        if one.n < 2:
            continue
        C = one.contrasts
        L = np.linalg.cholesky((C * (1 + growth * one.ratios) ** 2) @ C.T)
        U = np.linalg.solve(L, C @ lasting_features(one.ratios, low, high))
        S = np.linalg.solve(L, np.linalg.solve(L, one.scatter).T)
        middle_V22 = np.eye(2) + root_V2[:, :, None] * (U.T @ U) * root_V2[:, None, :]
        seen_V22 = root_V2[:, :, None] * (U.T @ S @ U) * root_V2[:, None, :]
        log_det += (one.n - 1) * np.linalg.slogdet(middle_V22)[1]
        square += np.trace(S) - np.trace(np.linalg.solve(middle_V22, seen_V22), axis1=1, axis2=2)
        count += (one.n - 1) * len(C)
        constant += (one.n - 1) * 2 * float(np.log(np.diag(L)).sum())
    variance_V = np.maximum(square / count, least)
    likelihood_V = -0.5 * (log_det + constant + count * np.log(variance_V) + square / variance_V)
    best = int(likelihood_V.argmax())
    return float(likelihood_V[best]), float(variance_V[best]), variance_V[best] * share_V2[best], growth
