"""The loss as a function of the prune ratio, fitted to all rounds: where is its minimum, and how sure is that?

Axes: M measurements (a ratio in a round), K of them in one round, N micro dev examples, D coefficients, S sign patterns,
Q bootstrap draws.

Each example's loss is modelled as `loss_i(t, p) = round_effect_i(t) + f_i(p)` with f_i a parabola: rounds differ because the
weights go on learning, so only differences within a round count. The fit is by least squares to losses y_i and features X_i
from which the mean over what the example saw in that round was taken, the losses before the round among them.

Where every example saw every ratio, the curve is the mean of the examples' own fits c_i. Where a probe was stopped early, some
examples saw less than others, a few perhaps too little for a fit of their own, and the curve is their mean weighted by what each
saw: `c = (sum_i G_i)^-1 sum_i G_i c_i` with `G_i = X_i' X_i`, that is one least squares fit to all examples' losses with a round
effect for each example and round. `G_i c_i = X_i' y_i` needs no fit of the example: one that saw nothing to compare has weight 0,
one that saw a narrow range says little of the bend. What examples did not see is thereby taken to be as others saw it; this is
fair as long as which ratios an example saw does not depend on its own losses (`racing.py`).

The fit is linear in the losses, a sum over examples, so that a bootstrap over examples is a mean over rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64

from pomona.control.sign_flip import signed_sums

Array = np.ndarray

_BOOTSTRAP_DRAWS = 2_000
_FLAT_LEVEL = 0.05
_POINTS = 25
_RANK_TOLERANCE = 1e-6
_ROUNDING = 1e-12
_EDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Curve:
    """A fitted curve `f_i(p) = sum_d coefficients_ND[i, d] u^(d+1)`, with `u = (2 p - low - high) / (high - low)` in [-1, 1].

    Args:
        low: lowest ratio that was tried.
        high: highest ratio that was tried; above `low`.
        coefficients_ND: each example's part `N (sum_j G_j)^-1 X_i' y_i` of the mean over examples; its own coefficients where all
            examples saw every ratio. D = 2 for a parabola, 1 for a line where the ratios do not identify more.
        drawn_QD: coefficients of the mean loss in bootstrap draws over the examples.
    """

    low: float
    high: float
    coefficients_ND: Float64[Array, "N D"]
    drawn_QD: Float64[Array, "Q D"]

    @property
    def mean(self) -> Float64[Array, " D"]:
        """Coefficients of the mean loss."""
        return self.coefficients_ND.mean(axis=0)

    def best(self) -> float:
        """The ratio in [low, high] with the lowest fitted mean loss. Ratios outside were never tried, and are not trusted."""
        return float(self._ratio(_lowest_at(self.mean[None]))[0])

    def interval(self, prune_ratio_min: float, prune_ratio_max: float) -> tuple[float, float]:
        """95 % interval of where the loss is lowest within the allowed range.

        It is the percentile interval of `best` over the bootstrap draws; where that reaches the lowest or highest ratio tried,
        the optimum may as well lie beyond it, and the interval goes on to the end of the allowed range.

        Args:
            prune_ratio_min: lowest ratio allowed.
            prune_ratio_max: highest ratio allowed.
        """
        if len(self.coefficients_ND) == 1:
            return prune_ratio_min, prune_ratio_max
        low, high = np.quantile(self._ratio(_lowest_at(self.drawn_QD)), [0.025, 0.975])
        margin = _EDGE * (self.high - self.low)
        return (
            prune_ratio_min if low <= self.low + margin else float(low),
            prune_ratio_max if high >= self.high - margin else float(high),
        )

    def is_flat(self, generator: torch.Generator) -> bool:
        """Whether the fitted curve is within the noise of the examples.

        The spread (highest minus lowest fitted mean loss over [low, high]) is compared with the spreads that arise when each
        example's whole curve is given a random sign: were no ratio better than another, these would be as likely as the
        one seen. Flat where more than 5 % of them reach it. Choosing the best and the worst ratio after the fact is
        thereby allowed for. With fewer than 6 examples no curve can pass.
        """
        spread_S = _spread(signed_sums(self.coefficients_ND, generator))
        return bool(np.mean(spread_S >= spread_S[0] * (1 - 1e-9)) > _FLAT_LEVEL)

    def points(self, prune_ratio: float) -> tuple[tuple[float, float, float, float], ...]:
        """(prune ratio, reward relative to `prune_ratio`, low, high): 25 of them over [low, high], 95 % bootstrap intervals."""
        grid = np.linspace(self.low, self.high, _POINTS)
        contrast_DP = self._features(np.array([prune_ratio])).T - self._features(grid).T
        low_P, high_P = np.quantile(self.drawn_QD @ contrast_DP, [0.025, 0.975], axis=0)
        reward_P = self.mean @ contrast_DP
        return tuple(zip(grid.tolist(), reward_P.tolist(), low_P.tolist(), high_P.tolist(), strict=True))

    def _features(self, prune_ratios: Array) -> Float64[Array, "M D"]:
        return _powers(_unit(prune_ratios, self.low, self.high), self.coefficients_ND.shape[1])

    def _ratio(self, u: Array) -> Array:
        return np.clip((self.low + self.high) / 2 + u * (self.high - self.low) / 2, self.low, self.high)


def fit_curve(
    prune_ratios: Sequence[Sequence[float]], losses: Sequence[Sequence[Sequence[float | None]]], generator: torch.Generator
) -> Curve | None:
    """Fit the curve to all rounds.

    Args:
        prune_ratios: for each round the ratios that were measured, the one in force among them.
        losses: for each round and ratio the loss of each example, [N], None where it was not seen; the same N examples in every
            round.
        generator: draws the bootstrap samples of examples.

    Returns:
        The curve, or None where it says nothing: no example saw two ratios in one round, or the ratio changed no loss.
    """
    if not prune_ratios:
        return None
    ratios_M = np.concatenate([np.asarray(one, dtype=np.float64) for one in prune_ratios])
    low, high = float(ratios_M.min()), float(ratios_M.max())
    if high - low < _RANK_TOLERANCE:
        return None
    losses_MN = np.concatenate([np.asarray(one, dtype=np.float64) for one in losses])  # None becomes nan
    features_MD = _powers(_unit(ratios_M, low, high), 2)
    ends = np.cumsum([len(one) for one in prune_ratios])[:-1]
    differences_MNE = np.concatenate(
        [_differences(*one) for one in zip(np.split(losses_MN, ends), np.split(features_MD, ends), strict=True)]
    )
    if np.abs(differences_MNE[..., 0]).max() <= _ROUNDING * np.nanmax(np.abs(losses_MN)):
        return None
    compared_N = np.abs(differences_MNE[..., 1]).max(axis=0) > _RANK_TOLERANCE
    y_NM, X_NMD = differences_MNE[:, compared_N, 0].T, differences_MNE[:, compared_N, 1:].transpose(1, 0, 2)
    for degree in (2, 1):
        fitted = _least_squares(y_NM, X_NMD[..., :degree])
        if fitted is not None:
            coefficients_ND, influence_ND = fitted
            return Curve(low, high, coefficients_ND, _bootstrap(influence_ND, generator))
    return None


def _differences(losses_KN: Float64[Array, "K N"], features_KD: Float64[Array, "K D"]) -> Float64[Array, "K N E"]:
    """One round's losses and features, E = 1 + D, less each example's mean over what it saw; 0 where it did not."""
    values_KNE = np.concatenate([losses_KN[..., None], np.repeat(features_KD[:, None], losses_KN.shape[1], axis=1)], axis=2)
    seen_KN1 = ~np.isnan(losses_KN)[..., None]
    sums_NE = np.where(seen_KN1, values_KNE, 0.0).sum(axis=0)
    return np.where(seen_KN1, values_KNE - sums_NE / np.maximum(seen_KN1.sum(axis=0), 1), 0.0)


def _least_squares(y_NM: Float64[Array, "N M"], X_NMD: Float64[Array, "N M D"]) -> tuple[Array, Array] | None:
    """Each example's part of the fit to all, and its influence on it, both [N, D] with the fit as their mean; None if unidentified.

    With `X = Q R` the fit is `R^-1 sum_i Q_i' y_i`. The influence, `c + N (sum_j G_j)^-1 X_i' (y_i - X_i c)`, is how the fit moves
    with the weight of an example; it differs from the part only where examples saw different ratios, as then a draw with more of
    those that saw much is no draw of a higher loss.
    """
    n, _, degree = X_NMD.shape
    if n == 0:
        return None
    Q, R = np.linalg.qr(X_NMD.reshape(-1, degree))
    if np.linalg.matrix_rank(R, tol=_RANK_TOLERANCE * np.sqrt(n)) < degree:
        return None
    Q_NMD = Q.reshape(X_NMD.shape)
    part_ND = n * np.einsum("nmd,nm->nd", Q_NMD, y_NM)
    fit_D = part_ND.mean(axis=0)
    influence_ND = fit_D + part_ND - n * np.einsum("nmd,nm->nd", Q_NMD, Q_NMD @ fit_D)
    return np.linalg.solve(R, part_ND.T).T, np.linalg.solve(R, influence_ND.T).T


def _bootstrap(influence_ND: Float64[Array, "N D"], generator: torch.Generator) -> Float64[Array, "Q D"]:
    """Means over examples drawn with replacement, their deviations widened by sqrt(N / (N - 1)) to be unbiased for small N."""
    n = len(influence_ND)
    draws = torch.randint(n, (_BOOTSTRAP_DRAWS, n), generator=generator).numpy()
    mean_D = influence_ND.mean(axis=0)
    return mean_D + (influence_ND[draws].mean(axis=1) - mean_D) * np.sqrt(n / max(n - 1, 1))


def _unit(prune_ratios: Array, low: float, high: float) -> Array:
    return (2 * prune_ratios - low - high) / (high - low)


def _powers(u: Array, degree: int) -> Float64[Array, "M D"]:
    return np.stack([u**power for power in range(1, degree + 1)], axis=1)


def _split(coefficients_SD: Float64[Array, "S D"]) -> tuple[Array, Array]:
    """Linear and quadratic coefficients; the quadratic ones of a line are 0."""
    slope_S = coefficients_SD[:, 0]
    return slope_S, coefficients_SD[:, 1] if coefficients_SD.shape[1] == 2 else np.zeros_like(slope_S)


def _vertex(slope_S: Array, bend_S: Array) -> Array:
    """Where the parabola turns, moved into [-1, 1]; for a line, its lower end."""
    bent = bend_S != 0
    return np.where(bent, np.clip(-slope_S / np.where(bent, 2 * bend_S, 1.0), -1.0, 1.0), -np.sign(slope_S))


def _lowest_at(coefficients_SD: Float64[Array, "S D"]) -> Array:
    """The u in [-1, 1] at which each curve is lowest."""
    slope_S, bend_S = _split(coefficients_SD)
    return np.where(bend_S > 0, _vertex(slope_S, bend_S), -np.sign(slope_S))


def _spread(coefficients_SD: Float64[Array, "S D"]) -> Array:
    """Highest minus lowest value of each curve over [-1, 1]."""
    slope_S, bend_S = _split(coefficients_SD)
    values = np.stack([u * slope_S + u * u * bend_S for u in (-1.0, 1.0, _vertex(slope_S, bend_S))])
    return values.max(axis=0) - values.min(axis=0)
