"""What a search has measured as a statistical model reads it: shapes that the loss may have, contrasts, and their noise.

Axes: N examples, M measurements (a ratio in a round), K contrasts, F features, G shapes of one size, D features of a shape, V
settings of the noise that are tried.

Shapes: flat, lines, parabolas, cliffs, knees, jumps, two cliffs. Each is a linear combination of a few features: the ratio p,
its square, and for each place c a hinge `max(0, p - c)`, where a cliff begins, the hinge's square, where a knee does, and a jump
`p > c`. A kind of shape has one weight, shared out among its places.

Contrasts: within a round every example has a level of its own that says nothing of the ratio. So only differences within a round
count, orthonormal, one fewer than the round has measurements.

Noise: how far the mean losses may lie from what endless examples would show. Each probe has a noise of its own, whose deviation may
grow with the prune ratio p. And examples differ in how they bear pruning, again and again: example i has an effect
`a_i q + b_i (q^2 - 1/2)`, with q from -1 to 1 over the allowed range, which more rounds do not average out. Their variances are
those of highest likelihood given how the examples' contrasts scatter around their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from pomona.control.rounds import Round

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


_ROUNDING = 1e-12


class Readings(NamedTuple):
    """Contrasts of n examples that saw the same measurements.

    Args:
        n: how many examples.
        ratios: the prune ratios that they saw, [M].
        contrasts: [K, M], orthonormal rows that sum to 0 within each round.
        mean: contrasts of the mean loss over the examples, [K], nats per token or what else rewards the run.
        scatter: sum over examples of the products of their contrasts' deviations from the mean, [K, K].
    """

    n: int
    ratios: Float64[Array, " M"]
    contrasts: Float64[Array, "K M"]
    mean: Float64[Array, " K"]
    scatter: Float64[Array, "K K"]


def measured(rounds: Sequence[Round]) -> tuple[list[tuple[float, ...]], list[tuple[tuple[float | None, ...], ...]]]:
    """For each round the ratios that were measured, that of the reference first, and the losses under each, [N]."""
    ratios = [(*one.reference, *(candidate.prune_ratio for candidate in one.candidates)) for one in rounds]
    return ratios, [(one.losses_before, *(candidate.losses for candidate in one.candidates)) for one in rounds]


def readings(prune_ratios: Sequence[Sequence[float]], losses: Sequence[Sequence[Sequence[float | None]]]) -> tuple[Readings, ...]:
    """A search's measurements, one entry for each set of examples that saw the same.

    Args:
        prune_ratios: for each round the ratios that were measured.
        losses: for each round and ratio the loss of each example, [N], None where it was not seen; the same N in every round.

    Returns:
        Empty where nothing can be compared: no example saw two ratios in one round, or no loss depended on the ratio.
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
    """Helmert's contrasts within each round: of each measurement but the first, with the mean of those before it."""
    rows = []
    for one in np.unique(rounds):
        (at,) = np.nonzero(rounds == one)
        for k in range(1, len(at)):
            row = np.zeros(len(rounds))
            row[at[:k]], row[at[k]] = -1 / k, 1.0
            rows.append(row * np.sqrt(k / (k + 1)))
    return np.array(rows).reshape(-1, len(rounds))


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
