"""The loss as a function of the prune ratio, fitted to all rounds: where is its minimum, and how sure is that?

Axes: M measurements (a ratio in a round), N micro dev examples, D coefficients, S sign patterns, Q bootstrap draws.

Each example's loss is modelled as `loss_i(t, p) = round_effect_i(t) + f_i(p)` with f_i a parabola; `within_rounds.py` fits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64

from pomona.control.scaled import EDGE, POINTS, ratio, unit, within_noise
from pomona.control.sign_flip import signed_sums
from pomona.control.within_rounds import RANK_TOLERANCE, compared_within_rounds, fit

Array = np.ndarray


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
        """The mean over the bootstrap draws of the ratio in [low, high] with the lowest fitted mean loss.

        Where the examples agree, that is the minimum of the curve; where they do not, it keeps away from the ends of the range,
        at which the minimum of a noisy curve mostly lies. Ratios outside were never tried, and are not trusted.
        """
        return float(self._ratio(_lowest_at(self.drawn_QD).mean()))

    def interval(self, prune_ratio_min: float, prune_ratio_max: float) -> tuple[float, float]:
        """95 % interval of where the loss is lowest within the allowed range.

        It is the percentile interval of the draws that `best` is the mean of. Where it reaches the lowest or highest ratio tried,
        the optimum may as well lie beyond, and the interval goes on to the end of the allowed range.

        Args:
            prune_ratio_min: lowest ratio allowed.
            prune_ratio_max: highest ratio allowed.
        """
        if len(self.coefficients_ND) == 1:
            return prune_ratio_min, prune_ratio_max
        low, high = np.quantile(self._ratio(_lowest_at(self.drawn_QD)), [0.025, 0.975])
        margin = EDGE * (self.high - self.low)
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
        return within_noise(spread_S)

    def points(self, prune_ratio: float) -> tuple[tuple[float, float, float, float], ...]:
        """(prune ratio, reward relative to `prune_ratio`, low, high): 25 of them over [low, high], 95 % bootstrap intervals."""
        grid = np.linspace(self.low, self.high, POINTS)
        contrast_DP = self._features(np.array([prune_ratio])).T - self._features(grid).T
        low_P, high_P = np.quantile(self.drawn_QD @ contrast_DP, [0.025, 0.975], axis=0)
        reward_P = self.mean @ contrast_DP
        return tuple(zip(grid.tolist(), reward_P.tolist(), low_P.tolist(), high_P.tolist(), strict=True))

    def _features(self, prune_ratios: Array) -> Float64[Array, "M D"]:
        return _powers(unit(prune_ratios, self.low, self.high), self.coefficients_ND.shape[1])

    def _ratio(self, u: Array) -> Array:
        return ratio(u, self.low, self.high)


def fit_curve(
    prune_ratios: Sequence[Sequence[float]], losses: Sequence[Sequence[Sequence[float | None]]], generator: torch.Generator
) -> Curve | None:
    """Fit the curve to all rounds.

    Args:
        prune_ratios: for each round the ratios that were measured, the reference mask's among them.
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
    if high - low < RANK_TOLERANCE:
        return None
    compared = compared_within_rounds(losses, [_powers(unit(np.asarray(one), low, high), 2) for one in prune_ratios])
    for degree in (2, 1):
        fitted = compared and fit(compared.y_NM, compared.X_NMD[..., :degree], generator)
        if fitted:
            return Curve(low, high, fitted.coefficients_ND, fitted.drawn_QD)
    return None


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
