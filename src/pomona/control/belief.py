"""The posterior of the loss as a function of the prune ratio after some rounds, as draws of the curve.

Axes: S draws, P points of the allowed range, M ratios, F features, K contrasts, D features of a shape, G shapes of one size.

The mean loss over infinitely many examples has one of the shapes of `curve_model.py`; the prior of its coefficients is normal with
an unknown deviation. Measurements differ from it by normal noise, so a shape's evidence and posterior are exact, and shapes are
weighted by their evidence. Then curves are weighted by the place of their minimum, which is most often inside the allowed range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from pomona.control.curve_model import Noise, Readings, Shapes, all_shapes, estimate_noise, features, lasting_features, readings
from pomona.control.within_rounds import POINTS
from pomona.ratios import CurvePoint

Array = np.ndarray

_DRAWN, _KEPT = 2_000, 1_000
_GRID = 141
_LEVEL = 0.95
_LOWEST_AT_LOW, _LOWEST_AT_HIGH = 0.08, 0.3
"""Prior weights of curves with the minimum at an end of the allowed range; curves with the minimum inside have weight 1."""

_STEP = 4.0
_LEAST_SIZES = 7
_ROUNDING = 1e-12
_SHAPES = all_shapes()


@dataclass(frozen=True, eq=False)
class Belief:
    """Equally likely draws of the curve.

    Args:
        low, high: the allowed range of ratios.
        tried: the lowest and highest measured ratio.
        coefficients_SF: each draw's curve, as combinations of `curve_model.features`.
        lasting_S2: in each draw the mean of the lasting effects of the measured examples.
        noise: the noise of one example's loss.
        n: number of examples.
    """

    low: float
    high: float
    tried: tuple[float, float]
    coefficients_SF: Float64[Array, "S F"]
    lasting_S2: Float64[Array, "S 2"]
    noise: Noise
    n: int

    def curves(self, prune_ratios: Float64[Array, " M"]) -> Float64[Array, "S M"]:
        """The mean loss over infinitely many examples at each ratio, up to a constant for each draw."""
        return self.coefficients_SF @ features(prune_ratios, self.high).T

    @property
    def grid(self) -> Float64[Array, " P"]:
        """Ratios from the lowest to the highest allowed."""
        return np.linspace(self.low, self.high, _GRID)

    def best(self) -> float:
        """The ratio with the least expected shortfall: its loss minus the curve's minimum, as a share of the curve's spread.

        So every plausible curve counts equally, however high its cliff. If all draws are flat, it is the middle of the range.
        """
        shortfall_P = shortfall(self.curves(self.grid)).mean(axis=0)
        return float(self.grid[shortfall_P.argmin()]) if shortfall_P.any() else (self.low + self.high) / 2

    def deviation(self) -> float:
        """The standard deviation of the draws' minimum points within the allowed range."""
        return float(self._lowest().std())

    def _lowest(self) -> Float64[Array, " S"]:
        """The minimum point of each draw; for flat draws, points spread over the range."""
        curves_SP = self.curves(self.grid)
        lowest_S = self.grid[curves_SP.argmin(axis=1)]
        (flat,) = np.nonzero(np.ptp(curves_SP, axis=1) == 0)
        lowest_S[flat] = np.linspace(self.low, self.high, len(flat))
        return lowest_S

    def interval(self) -> tuple[float, float]:
        """95 % interval of the ratio with the lowest mean loss over infinitely many examples, within the allowed range.

        From the 2.5 % to the 97.5 % quantile of the draws' minimum points. With a single example it is the allowed range.
        """
        if self.n == 1:
            return self.low, self.high
        low, high = np.quantile(self._lowest(), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return float(low), float(high)

    def points(self, prune_ratio: float) -> tuple[CurvePoint, ...]:
        """The mean gain over `prune_ratio` of 25 ratios in the tried range, with 95 % intervals."""
        at = np.linspace(*self.tried, POINTS)
        gain_SM = self.curves(np.array([prune_ratio])) - self.curves(at)
        low_M, high_M = np.quantile(gain_SM, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], axis=0)
        columns = (at, gain_SM.mean(axis=0), low_M, high_M)
        return tuple(map(CurvePoint, *(column.tolist() for column in columns)))


def shortfall(curves_SP: Float64[Array, "S P"]) -> Float64[Array, "S P"]:
    """Each curve above its lowest point, as a share of its spread; 0 all over where it is flat."""
    least_S1 = curves_SP.min(axis=1, keepdims=True)
    spread_S1 = curves_SP.max(axis=1, keepdims=True) - least_S1
    return (curves_SP - least_S1) / np.where(spread_S1 > 0, spread_S1, 1.0)


def believe(
    prune_ratios: Sequence[Sequence[float]],
    losses: Sequence[Sequence[Sequence[float | None]]],
    low: float,
    high: float,
    seed: int,
) -> Belief | None:
    """The posterior after some rounds.

    Args:
        prune_ratios: the measured ratios of each round.
        losses: for each round and ratio the loss of each example, [N], None if it was not measured; the same N in every round.
        low: lowest ratio allowed.
        high: highest ratio allowed, > `low`.
        seed: seed of the draws.

    Returns:
        The posterior, or None if nothing can be compared: no example has two ratios in one round, or no loss depends on the ratio.
    """
    found = readings(prune_ratios, losses)
    if not found:
        return None
    noise = estimate_noise(found, low, high)
    random = np.random.default_rng(seed)
    coefficients_SF = _draw_coefficients(found, noise, low, high, random)
    curves_SP = coefficients_SF @ features(np.linspace(low, high, _GRID), high).T
    kept = _resampled(_likelihood_of_place(curves_SP), random)
    tried = [ratio for one in prune_ratios for ratio in one]
    return Belief(
        low=low,
        high=high,
        tried=(min(tried), max(tried)),
        coefficients_SF=coefficients_SF[kept],
        lasting_S2=_draw_lasting(found, noise, low, high, coefficients_SF[kept], random),
        noise=noise,
        n=sum(one.n for one in found),
    )


class _Data(NamedTuple):
    """Sums over contrasts and features with unit noise: products, [F, F] and [F], sum of squares, number, degrees of freedom."""

    products: Float64[Array, "F F"]
    onto: Float64[Array, " F"]
    square: float
    number: int
    freedom: int


class _Posterior(NamedTuple):
    """For shapes of one size and one prior deviation: evidence, [G], mean, Cholesky factor of the precision, misfit."""

    shapes: Shapes
    evidence: Float64[Array, " G"]
    mean: Float64[Array, "G D"]
    factor: Float64[Array, "G D D"]
    misfit: Float64[Array, " G"]


def _draw_coefficients(
    found: Sequence[Readings], noise: Noise, low: float, high: float, random: np.random.Generator
) -> Float64[Array, "S F"]:
    """Draws of the curve's coefficients, with shapes by evidence; Student's t, not normal, because the noise is estimated."""
    whitened = [_whitened(one, noise, low, high) for one in found]
    y_K = np.concatenate([y for y, _ in whitened])
    X_KF = np.concatenate([X for _, X in whitened])
    data = _Data(X_KF.T @ X_KF, X_KF.T @ y_K, float(y_K @ y_K), len(y_K), noise.freedom)
    sizes = _prior_deviations(found, noise)
    posteriors = [_posterior(data, shapes, size, len(sizes)) for shapes in _SHAPES for size in sizes]
    evidence = np.concatenate([one.evidence for one in posteriors])
    share = np.exp(evidence - evidence.max())
    picked = _systematic(share / share.sum(), _DRAWN, random)
    starts = np.cumsum([0, *(len(one.evidence) for one in posteriors)])
    normal_S3 = random.standard_normal((_DRAWN, 3))
    widened_S = noise.freedom / random.chisquare(noise.freedom, _DRAWN)
    drawn_SF = np.zeros((_DRAWN, X_KF.shape[1]))
    for one, start, stop in zip(posteriors, starts[:-1], starts[1:], strict=True):
        (draws,) = np.nonzero((picked >= start) & (picked < stop))
        which, d = picked[draws] - start, one.shapes.features.shape[1]
        if not len(draws) or not d:
            continue
        # A misfit above the estimated noise widens the draws; one below it may be due to the probes alone and does not narrow them.
        misfit = (noise.freedom + one.misfit[which]) / (noise.freedom + len(y_K))
        scale = np.sqrt(np.maximum(misfit, 1.0) * widened_S[draws])
        away = np.linalg.solve(np.swapaxes(one.factor[which], 1, 2), normal_S3[draws, :d, None])[..., 0]
        drawn_SF[draws[:, None], one.shapes.features[which]] = one.mean[which] + away * scale[:, None]
    return drawn_SF


def _prior_deviations(found: Sequence[Readings], noise: Noise) -> list[float]:
    """Prior deviations of the coefficients: from the noise of a mean, by factors of 4, to above the largest observed contrast."""
    least = np.sqrt(noise.variance / sum(one.n for one in found))
    largest = max(float(np.abs(one.mean).max()) for one in found)
    sizes = max(_LEAST_SIZES, int(np.ceil(np.log(max(largest / least, 1.0)) / np.log(_STEP))) + 3)
    return [float(least * _STEP**k) for k in range(sizes)]


def _whitened(one: Readings, noise: Noise, low: float, high: float) -> tuple[Array, Array]:
    """The contrasts of a reading and of the features, scaled to unit noise."""
    C, lasting = one.contrasts, one.contrasts @ lasting_features(one.ratios, low, high)
    covariance = ((C * noise.probe(one.ratios)) @ C.T + (lasting * noise.lasting) @ lasting.T) / one.n
    L = np.linalg.cholesky(covariance)
    return np.linalg.solve(L, one.mean), np.linalg.solve(L, C @ features(one.ratios, high))


def _posterior(data: _Data, shapes: Shapes, size: float, sizes: int) -> _Posterior:
    """The posterior with one of several prior deviations; the evidence is a multivariate t, because the noise is estimated."""
    which, d = shapes.features, shapes.features.shape[1]
    onto = data.onto[which]
    precision = data.products[which[:, :, None], which[:, None, :]] + np.eye(d) / size**2
    factor = np.linalg.cholesky(precision)
    mean = np.linalg.solve(precision, onto[..., None])[..., 0]
    misfit = np.maximum(data.square - (mean * onto).sum(axis=1), 0.0)
    penalty = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1) + d * np.log(size) + np.log(sizes)
    likelihood = -0.5 * (data.freedom + data.number) * np.log1p(misfit / data.freedom)
    return _Posterior(shapes, shapes.log_weight - penalty + likelihood, mean, factor, misfit)


def _likelihood_of_place(curves_SP: Float64[Array, "S P"]) -> Float64[Array, " S"]:
    """Prior weight of each curve by its minimum point, up to a factor."""
    lowest_S = curves_SP.argmin(axis=1)
    weight_S = np.ones(len(curves_SP))
    weight_S[lowest_S == 0] = _LOWEST_AT_LOW
    weight_S[lowest_S == curves_SP.shape[1] - 1] = _LOWEST_AT_HIGH
    weight_S[np.ptp(curves_SP, axis=1) == 0] = 1.0
    return weight_S


def _draw_lasting(
    found: Sequence[Readings], noise: Noise, low: float, high: float, coefficients_SF: Array, random: np.random.Generator
) -> Float64[Array, "S 2"]:
    """Draws of the mean lasting effects of the measured examples, given each draw's curve."""
    n, total_S2 = sum(one.n for one in found), np.zeros((len(coefficients_SF), 2))
    for one in found:
        C = one.contrasts
        E = C @ lasting_features(one.ratios, low, high)
        weighed = np.linalg.solve((C * noise.probe(one.ratios)) @ C.T / one.n, E)
        precision = E.T @ weighed + np.diag(one.n / np.maximum(noise.lasting, noise.variance * _ROUNDING))
        residual_SK = one.mean - coefficients_SF @ (C @ features(one.ratios, high)).T
        mean_S2 = np.linalg.solve(precision, weighed.T @ residual_SK.T).T
        spread = np.linalg.inv(np.linalg.cholesky(precision))
        total_S2 += one.n / n * (mean_S2 + random.standard_normal(mean_S2.shape) @ spread)
    return total_S2


def _systematic(share: Array, draws: int, random: np.random.Generator) -> Array:
    """Systematic sampling: each index is drawn about `draws` times its share."""
    at = (np.arange(draws) + random.random()) / draws
    return np.minimum(np.searchsorted(np.cumsum(share), at), len(share) - 1)


def _resampled(weight_S: Array, random: np.random.Generator) -> Array:
    return _systematic(weight_S / weight_S.sum(), _KEPT, random)
