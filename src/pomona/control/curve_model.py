"""The statistical model of a search's measurements: possible shapes of the loss, contrasts, and their noise.

Axes: N examples, M measurements (a ratio in a round), K contrasts, F features, G shapes of one size, D features of a shape, V
settings of the noise.

Shapes: flat, lines, parabolas, cliffs, knees, jumps, two cliffs. Each is a linear combination of a few features: the ratio p,
its square, and for each place c a hinge `max(0, p - c)`, the start of a cliff, the hinge's square, the start of a knee, and a jump
`p > c`. Each kind of shape has one weight, divided equally among its places.

Contrasts: within a round every example has its own level, which is independent of the ratio. So only differences within a round
count: orthonormal contrasts, one fewer than the round has measurements.

Noise: the deviation of mean losses from those of infinitely many examples. Each probe has its own noise, whose deviation may grow
with the prune ratio p. In addition, examples respond differently to pruning in every round: example i has a lasting effect
`a_i q + b_i (q^2 - 1/2)`, with q from -1 to 1 over the allowed range, which more rounds do not average out. The variances are
the maximum-likelihood estimates from the scatter of the examples' contrasts around their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from pomona.control.rounds import Round

Array = np.ndarray

_PLACES = 93
_COARSER = 4  # pairs of cliffs use every fourth place

_FLAT, _LINE, _PARABOLA, _CLIFF, _KNEE, _JUMP, _BENT_CLIFF, _TWO_CLIFFS = 1.0, 1.0, 3.0, 4.0, 0.5, 0.5, 0.5, 1.5
"""Prior weight of each kind of shape, up to a factor; chosen on separate draws of the truths of `controller_toy`."""


class Shapes(NamedTuple):
    """Shapes with equally many features.

    Args:
        features: indices of the features of each shape, [G, D].
        log_weight: logarithm of each shape's prior weight, up to a constant, [G].
    """

    features: Int[Array, "G D"]
    log_weight: Float64[Array, " G"]


def features(prune_ratios: Float64[Array, " M"], highest: float) -> Float64[Array, "M F"]:
    """`u`, `u^2`, hinges, their squares and jumps at each ratio, with u from -1 at ratio 0 to 1 at the highest ratio.

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
    """All shapes, grouped by their number of features."""
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
    """Kinds of shapes of one size, each with its weight divided equally."""
    weights = np.concatenate([np.full(len(rows), weight / len(rows)) for rows, weight in kinds])
    return Shapes(np.concatenate([rows for rows, _ in kinds]), np.log(weights))


_ROUNDING = 1e-12


class Readings(NamedTuple):
    """Contrasts of n examples with the same measurements.

    Args:
        n: number of examples.
        ratios: their measured prune ratios, [M].
        contrasts: [K, M], orthonormal rows that sum to 0 within each round.
        mean: contrasts of the mean loss over the examples, [K], in nats per token or the unit of the reward.
        scatter: sum over examples of the products of their contrasts' deviations from the mean, [K, K].
    """

    n: int
    ratios: Float64[Array, " M"]
    contrasts: Float64[Array, "K M"]
    mean: Float64[Array, " K"]
    scatter: Float64[Array, "K K"]


def measured(rounds: Sequence[Round]) -> tuple[list[tuple[float, ...]], list[tuple[tuple[float | None, ...], ...]]]:
    """The measured ratios of each round, with the reference first, and the losses under each ratio, [N]."""
    ratios = [(*one.reference, *(candidate.prune_ratio for candidate in one.candidates)) for one in rounds]
    return ratios, [(one.losses_before, *(candidate.losses for candidate in one.candidates)) for one in rounds]


def readings(prune_ratios: Sequence[Sequence[float]], losses: Sequence[Sequence[Sequence[float | None]]]) -> tuple[Readings, ...]:
    """A search's measurements, one entry for each set of examples with the same measurements.

    Args:
        prune_ratios: the measured ratios of each round.
        losses: for each round and ratio the loss of each example, [N], None if it was not measured; the same N in every round.

    Returns:
        Empty if nothing can be compared: no example has two ratios in one round, or no loss depends on the ratio.
    """
    if not prune_ratios:
        return ()
    ratios = np.concatenate([np.asarray(one, dtype=np.float64) for one in prune_ratios])
    rounds = np.repeat(np.arange(len(prune_ratios)), [len(one) for one in prune_ratios])
    y_NM = np.concatenate([np.asarray(one, dtype=np.float64) for one in losses]).T  # None becomes nan
    patterns, which = np.unique(~np.isnan(y_NM), axis=0, return_inverse=True)
    found = []
    for index, seen in enumerate(patterns):
        contrasts = _contrasts(rounds[seen])
        y_NK = y_NM[which.reshape(-1) == index][:, seen] @ contrasts.T
        if len(contrasts):
            mean = y_NK.mean(axis=0)
            found.append(Readings(len(y_NK), ratios[seen], contrasts, mean, (y_NK - mean).T @ (y_NK - mean)))
    largest = max((float(np.abs(one.mean).max() + np.sqrt(np.trace(one.scatter))) for one in found), default=0.0)
    return tuple(found) if largest > _ROUNDING * float(np.nanmax(np.abs(y_NM))) else ()


def _contrasts(rounds: Array) -> Float64[Array, "K M"]:
    """Helmert contrasts within each round: each measurement after the first, minus the mean of the earlier ones."""
    rows = []
    for one in np.unique(rounds):
        (at,) = np.nonzero(rounds == one)
        for k in range(1, len(at)):
            row = np.zeros(len(rounds))
            row[at[:k]], row[at[k]] = -1 / k, 1.0
            rows.append(row * np.sqrt(k / (k + 1)))
    return np.array(rows).reshape(-1, len(rounds))


_GROWTHS = (0.0, 2.0, 8.0)
"""Ratio of a probe's deviation at p = 1 to that at p = 0, minus 1."""

_SHARES = np.concatenate([[0.0], 10 ** np.arange(-1, 7.5, 0.5)])
"""Candidate variances of the lasting effects, in units of a probe's variance."""

_FLOOR = 1e-3
"""The least deviation of a probe, as a share of the largest mean contrast: otherwise equal examples would have no noise."""


class Noise(NamedTuple):
    """The noise of one example's loss; means over n examples have 1 / n of the variances.

    Args:
        variance: variance of a probe at p = 0, > 0.
        growth: a probe's deviation at p is `1 + growth p` times that at p = 0.
        lasting: variances of a_i and b_i, [2].
        freedom: degrees of freedom of the estimate, >= 1.
    """

    variance: float
    growth: float
    lasting: Float64[Array, " 2"]
    freedom: int

    def probe(self, prune_ratios: Array) -> Array:
        """The variance of a probe at each ratio, without lasting effects."""
        return self.variance * (1 + self.growth * prune_ratios) ** 2


def lasting_features(prune_ratios: Array, low: float, high: float) -> Float64[Array, "M 2"]:
    """`q` and `q^2 - 1/2`, with q from -1 at the lowest allowed ratio to 1 at the highest."""
    q = (2 * prune_ratios - low - high) / (high - low)
    return np.stack([q, q * q - 0.5], axis=1)


def estimate_noise(found: Sequence[Readings], low: float, high: float) -> Noise:
    """The maximum-likelihood estimate of the noise.

    Args:
        found: one or more results of `readings`.
        low: lowest ratio allowed.
        high: highest ratio allowed.

    Returns:
        If no two examples have the same measurements, all contrasts may be noise: their mean square, one degree of freedom.
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
    """For one growth: the highest log likelihood, the probe's variance, the lasting effects' variances, and the growth.

    With a probe's variance of 1, the whitened covariance of a reading is `I + U R U'`, R the two shares; so determinant and inverse
    need only 2 x 2 matrices, for all V pairs of shares at once. The best variance of a probe is then a mean square, or `least`.
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
