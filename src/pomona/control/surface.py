"""The loss as a function of the prune ratios of several groups of layers, fitted to all rounds.

Axes: M measurements (candidates and the reference mask, over all rounds), K groups, N micro dev examples, P coefficients of a
model, Q bootstrap draws; X of either N or Q, or none.

Each example's loss is a round effect plus a parabola in each group's ratio, `f_i(p) = sum_k b_ik u_k + c_ik u_k^2`, with u from -1
to 1 over the tried range of all groups. The model has no interactions between groups. A few rounds cannot determine all these
coefficients, and noise would appear as differences between groups; so cross-validation over rounds selects the model with the best
prediction of a round's losses from the other rounds:

    no differences between groups           b_k = b, c_k = c
    groups differ only in slope             b_k, c_k = c
    each group has its own parabola         b_k, c_k

If the tried ratios identify none of them, the model is one line for all groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64

from pomona.control.within_rounds import (
    EDGE,
    POINTS,
    RANK_TOLERANCE,
    compared_within_rounds,
    fit,
    mean_fit,
    ratio,
    signed_sums,
    unit,
    within_noise,
)
from pomona.ratios import CurvePoint

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Surface:
    """A fitted surface.

    Args:
        low, high: lowest and highest tried ratio of all groups; `low < high`.
        tried_K2: for each group the lowest and highest tried u, in [-1, 1].
        coefficients_N2K: each example's slopes, then its quadratic coefficients; their mean is the fit (see `within_rounds.Fit`).
        drawn_Q2K: mean coefficients in bootstrap draws over the examples.
    """

    low: float
    high: float
    tried_K2: Float64[Array, "K 2"]
    coefficients_N2K: Float64[Array, "N 2*K"]
    drawn_Q2K: Float64[Array, "Q 2*K"]

    def best(self) -> tuple[float, ...]:
        """For each group the ratio with the lowest fitted mean loss in its tried range, averaged over the bootstrap draws."""
        return tuple(self._ratio(self._lowest_at(self.drawn_Q2K).mean(axis=0)).tolist())

    def intervals(self, prune_ratio_min: float, prune_ratio_max: float) -> list[tuple[float, float]]:
        """For each group a 95 % interval of the ratio with the lowest loss in the allowed range.

        These are percentile intervals over the bootstrap draws. An interval that reaches the end of the group's tried range is
        extended to the end of the allowed range, because the optimum may be outside. With one example it is the allowed range.
        """
        if len(self.coefficients_N2K) == 1:
            return [(prune_ratio_min, prune_ratio_max)] * len(self.tried_K2)
        lows_K, highs_K = np.quantile(self._lowest_at(self.drawn_Q2K), [0.025, 0.975], axis=0)
        beyond_low_K, beyond_high_K = lows_K <= self.tried_K2[:, 0] + EDGE, highs_K >= self.tried_K2[:, 1] - EDGE
        lows_K = np.where(beyond_low_K, prune_ratio_min, self._ratio(lows_K))
        highs_K = np.where(beyond_high_K, prune_ratio_max, self._ratio(highs_K))
        return list(zip(lows_K.tolist(), highs_K.tolist(), strict=True))

    def is_flat(self, generator: torch.Generator) -> bool:
        """Whether the surface is within the examples' noise, as in `within_rounds.is_flat`, over the tried ranges."""
        values_SK3 = self._at(signed_sums(self.coefficients_N2K, generator))
        spread_S = (values_SK3.max(axis=-1) - values_SK3.min(axis=-1)).sum(axis=-1)
        return within_noise(spread_S)

    def points(self, prune_ratios: Sequence[float]) -> tuple[CurvePoint, ...]:
        """The gain over `prune_ratios` of 25 common ratios, over the range tried in every group.

        With 95 % bootstrap intervals. Empty if there is no such range.
        """
        low, high = self.tried_K2[:, 0].max(), self.tried_K2[:, 1].min()
        if high - low < RANK_TOLERANCE:
            return ()
        grid = np.linspace(low, high, POINTS)
        common_P2K = _features(np.repeat(grid[:, None], len(self.tried_K2), axis=1))
        contrast_P2K = _features(unit(np.array(prune_ratios), self.low, self.high)[None]) - common_P2K
        low_P, high_P = np.quantile(self.drawn_Q2K @ contrast_P2K.T, [0.025, 0.975], axis=0)
        reward_P = contrast_P2K @ self.coefficients_N2K.mean(axis=0)
        return tuple(map(CurvePoint, *(column.tolist() for column in (self._ratio(grid), reward_P, low_P, high_P))))

    def _at(self, coefficients_X2K: Array) -> Float64[Array, "*X K 3"]:
        """Each group's part of the loss at the lowest and highest tried u, and at its vertex, clipped to this range."""
        slope_XK, bend_XK = np.split(coefficients_X2K, 2, axis=-1)
        u_XK3 = self._turns(slope_XK, bend_XK)
        return slope_XK[..., None] * u_XK3 + bend_XK[..., None] * u_XK3**2

    def _turns(self, slope_XK: Array, bend_XK: Array) -> Float64[Array, "*X K 3"]:
        low_K, high_K = self.tried_K2.T
        # A line has no vertex: any point between the ends will do, because one end is the minimum.
        vertex_XK = np.clip(-slope_XK / np.where(bend_XK == 0, 1, 2 * bend_XK), low_K, high_K)
        return np.stack(np.broadcast_arrays(low_K, high_K, vertex_XK), axis=-1)

    def _lowest_at(self, coefficients_X2K: Array) -> Float64[Array, "*X K"]:
        turns_XK3 = self._turns(*np.split(coefficients_X2K, 2, axis=-1))
        lowest_XK1 = self._at(coefficients_X2K).argmin(axis=-1)[..., None]
        return np.take_along_axis(turns_XK3, lowest_XK1, axis=-1)[..., 0]

    def _ratio(self, u: Array) -> Array:
        return ratio(u, self.low, self.high)


def fit_surface(
    prune_ratios: Sequence[Sequence[Sequence[float]]],
    losses: Sequence[Sequence[Sequence[float | None]]],
    generator: torch.Generator,
) -> Surface | None:
    """Fit the surface to all rounds.

    Args:
        prune_ratios: for each round and measurement the K ratios, including the reference mask.
        losses: for each round and measurement the loss of each example, [N], None if not measured; the same N in every round.
        generator: source of the bootstrap samples of examples.

    Returns:
        The surface, or None: no example has two candidates in one round, or no loss depends on the ratios.
    """
    if not prune_ratios:
        return None
    ratios_MK = np.concatenate([np.asarray(one, dtype=np.float64) for one in prune_ratios])
    low, high = float(ratios_MK.min()), float(ratios_MK.max())
    if high - low < RANK_TOLERANCE:
        return None
    compared = compared_within_rounds(losses, [_features(unit(np.asarray(one), low, high)) for one in prune_ratios])
    if compared is None:
        return None
    rounds_M = np.repeat(np.arange(len(prune_ratios)), [len(one) for one in prune_ratios])
    models = _models(ratios_MK.shape[1])
    errors = [_error(compared.y_NM, compared.X_NMD @ model_2KP, rounds_M) for model_2KP in models]
    in_order = [models[place] for place in np.argsort(errors, kind="stable")]
    for model_2KP in (*in_order, _line(ratios_MK.shape[1])):
        found = fit(compared.y_NM, compared.X_NMD @ model_2KP, generator)
        if found is not None:
            u_MK = unit(ratios_MK, low, high)
            tried_K2 = np.stack([u_MK.min(axis=0), u_MK.max(axis=0)], axis=1)
            return Surface(low, high, tried_K2, found.coefficients_ND @ model_2KP.T, found.drawn_QD @ model_2KP.T)
    return None


def _error(y_NM: Float64[Array, "N M"], X_NMP: Float64[Array, "N M P"], rounds_M: Array) -> float:
    """Cross-validated mean squared error of the mean losses of each round, by fits to the other rounds; inf if a fit fails."""
    squares = 0.0
    for index in range(rounds_M[-1] + 1):
        left_out = rounds_M == index
        coefficients_P = mean_fit(y_NM[:, ~left_out], X_NMP[:, ~left_out])
        if coefficients_P is None:
            return math.inf
        squares += float(((y_NM[:, left_out] - X_NMP[:, left_out] @ coefficients_P).mean(axis=0) ** 2).sum())
    return squares / len(rounds_M)


def _models(groups: int) -> list[Float64[Array, "2*K P"]]:
    """The matrices from each model's coefficients to slopes and quadratic coefficients, from the simplest model on."""
    own, common, none = np.eye(groups), np.ones((groups, 1)), np.zeros((groups, 1))
    slopes_and_bend = np.block([[own, none], [np.zeros((groups, groups)), common]])
    return [np.block([[common, none], [none, common]]), slopes_and_bend, np.eye(2 * groups)]


def _line(groups: int) -> Float64[Array, "2*K 1"]:
    """One slope for all groups, without a quadratic term, for ratios that do not identify a parabola."""
    return np.concatenate([np.ones((groups, 1)), np.zeros((groups, 1))])


def _features(u_MK: Float64[Array, "M K"]) -> Float64[Array, "M 2*K"]:
    return np.concatenate([u_MK, u_MK**2], axis=1)
