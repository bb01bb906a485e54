"""Statistics of losses within rounds, independent of the rounds' levels: sign-flip tests, least squares, the test for a flat curve.

Axes: M measurements (candidates and the reference mask, over all rounds), K of them in one round, N micro dev examples, D
coefficients, E = 1 + D, Q bootstrap draws, S sign patterns.

Each example's loss is modelled as `loss_i(t, x) = round_effect_i(t) + c_i' x`, with features x of the tried ratios:
rounds differ because the weights change during training, so only differences within a round count. The fit is by least squares to
losses y_i and features X_i, each centred by the mean over the example's measurements in the round, including the reference.

If every example has every measurement, the fit is the mean of the examples' fits c_i. If a probe was stopped early, some examples
have fewer measurements, perhaps too few for their own fit, and the fit is their weighted mean:
`c = (sum_i G_i)^-1 sum_i G_i c_i` with `G_i = X_i' X_i`, which is one least squares fit to all examples' losses with a round effect
for each example and round. `G_i c_i = X_i' y_i` needs no fit of the example: an example without a comparison has weight 0, and an
example with a narrow range of ratios contributes little to the curvature. Missing measurements are thereby assumed to be like those
of other examples, which is unbiased if the ratios measured for an example do not depend on its own losses (`racing.py`).

The fit is linear in the losses, a sum over examples, so that a bootstrap over examples is a mean over rows.

Sign-flip permutation tests: without a gain, the sign of each example's gain is random, so all sign patterns of the N per-example
values are equally likely. With few examples all patterns are evaluated, and the test is exact; with more, patterns are drawn.
Normality is not assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64

Array = np.ndarray

EXACT_UP_TO = 16
"""The largest number of examples for which all patterns (2^16) are evaluated."""

DRAWS = 9_999
"""Number of patterns drawn for more examples; with the observed pattern, p-values are multiples of 1 / 10,000."""

POINTS = 25
"""Number of points of an answer's fitted curve."""

EDGE = 1e-6
"""An optimum this close to an end of the tried range, on the scale from -1 to 1, may be outside it."""

_FLAT_LEVEL = 0.05

RANK_TOLERANCE = 1e-6
"""Features that differ by less than this, on a scale from -1 to 1, count as equal."""

_BOOTSTRAP_DRAWS = 2_000
_ROUNDING = 1e-12


# Sign-flip tests


def signed_sums(values_ND: Float64[np.ndarray, "N D"], generator: torch.Generator) -> Float64[np.ndarray, "S D"]:
    """The sums over N examples under S sign patterns, [S, D]; the first is the observed pattern, all signs +1.

    Args:
        values_ND: D values of each example, N >= 1; an example's values share their sign.
        generator: used only if N > `EXACT_UP_TO`.
    """
    n, d = values_ND.shape
    if n > EXACT_UP_TO:
        signs_SN = 1.0 - 2.0 * torch.randint(2, (DRAWS, n), generator=generator).numpy()
        return np.concatenate([values_ND.sum(axis=0, keepdims=True), signs_SN @ values_ND])
    sums_SD = np.zeros((1, d))
    for value_D in values_ND:
        sums_SD = np.concatenate([sums_SD + value_D, sums_SD - value_D])
    return sums_SD


def gain_p_value(gains: Sequence[float], generator: torch.Generator) -> float:
    """One-sided p-value of "the gains are not above zero": the share of patterns whose sum is at least the observed one.

    Args:
        gains: loss before minus loss after of each example, [N], N >= 1, finite.
        generator: used only if N > `EXACT_UP_TO`.

    Returns:
        In (0, 1]; the smallest possible value is 2^-N, and gains that are all 0 give 1.
    """
    values = np.asarray(gains, dtype=np.float64)
    sums = signed_sums(values[:, None], generator)[:, 0]
    return float(np.mean(sums >= sums[0] - _ROUNDING * np.abs(values).sum()))


# Least squares


class Compared(NamedTuple):
    """Losses and features minus each example's mean within the round; 0 without a measurement or a comparison."""

    y_NM: Float64[Array, "N M"]
    X_NMD: Float64[Array, "N M D"]


class Fit(NamedTuple):
    """A fit by least squares.

    Args:
        coefficients_ND: each example's part `N (sum_j G_j)^-1 X_i' y_i` of the mean over examples; its own coefficients if all
            examples have all measurements.
        drawn_QD: the mean coefficients in bootstrap draws over the examples.
    """

    coefficients_ND: Float64[Array, "N D"]
    drawn_QD: Float64[Array, "Q D"]


def compared_within_rounds(
    losses: Sequence[Sequence[Sequence[float | None]]], features: Sequence[Float64[Array, "K D"]]
) -> Compared | None:
    """The comparisons within rounds, for the examples with two or more measurements in one round.

    Args:
        losses: for each round and measurement the loss of each example, [N], None if not measured; the same N in every round.
        features: for each round the features of its measurements, in the same order.

    Returns:
        The comparisons, or None if no example has a comparison, or no loss depends on the ratio.
    """
    rounds = [np.asarray(one, dtype=np.float64) for one in losses]  # None becomes nan
    differences_MNE = np.concatenate([_differences(*one) for one in zip(rounds, features, strict=True)])
    if np.abs(differences_MNE[..., 0]).max() <= _ROUNDING * max(float(np.nanmax(np.abs(one))) for one in rounds):
        return None
    compared_N = np.abs(differences_MNE[..., 1:]).max(axis=(0, 2)) > RANK_TOLERANCE
    if not compared_N.any():
        return None
    return Compared(differences_MNE[:, compared_N, 0].T, differences_MNE[:, compared_N, 1:].transpose(1, 0, 2))


def _differences(losses_KN: Float64[Array, "K N"], features_KD: Float64[Array, "K D"]) -> Float64[Array, "K N E"]:
    """One round's losses and features, E = 1 + D, minus each example's mean over its measurements; 0 for missing ones."""
    values_KNE = np.concatenate([losses_KN[..., None], np.repeat(features_KD[:, None], losses_KN.shape[1], axis=1)], axis=2)
    seen_KN1 = ~np.isnan(losses_KN)[..., None]
    sums_NE = np.where(seen_KN1, values_KNE, 0.0).sum(axis=0)
    return np.where(seen_KN1, values_KNE - sums_NE / np.maximum(seen_KN1.sum(axis=0), 1), 0.0)


def _least_squares(y_NM: Float64[Array, "N M"], X_NMD: Float64[Array, "N M D"]) -> tuple[Array, Array] | None:
    """Each example's part of the common fit, and its influence, both [N, D] with the fit as their mean; None if unidentified.

    With `X = Q R` the fit is `R^-1 sum_i Q_i' y_i`. The influence, `c + N (sum_j G_j)^-1 X_i' (y_i - X_i c)`, is the change of the
    fit with the weight of an example. It differs from the part only if examples have different measured ratios: then a draw with
    more of the examples with many measurements is not a draw with a higher loss.
    """
    n, _, degree = X_NMD.shape
    Q, R = np.linalg.qr(X_NMD.reshape(-1, degree))
    if np.linalg.matrix_rank(R, tol=RANK_TOLERANCE * np.sqrt(n)) < degree:
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


def fit(y_NM: Float64[Array, "N M"], X_NMD: Float64[Array, "N M D"], generator: torch.Generator) -> Fit | None:
    """The fit to all examples; None if the features do not identify it.

    Args:
        y_NM: losses from `compared_within_rounds`.
        X_NMD: its features, or linear combinations of them.
        generator: source of the bootstrap samples of examples.
    """
    fitted = _least_squares(y_NM, X_NMD)
    if fitted is None:
        return None
    coefficients_ND, influence_ND = fitted
    return Fit(coefficients_ND, _bootstrap(influence_ND, generator))


def mean_fit(y_NM: Float64[Array, "N M"], X_NMD: Float64[Array, "N M D"]) -> Float64[Array, " D"] | None:
    """The coefficients of the fit to all examples; None if the features do not identify them."""
    found = parts(y_NM, X_NMD)
    return None if found is None else found.mean(axis=0)


def parts(y_NM: Float64[Array, "N M"], X_NMD: Float64[Array, "N M D"]) -> Float64[Array, "N D"] | None:
    """Each example's part of the fit, as in `Fit`; None if the features do not identify it."""
    fitted = _least_squares(y_NM, X_NMD)
    return None if fitted is None else fitted[0]


# Whether ratios are indistinguishable


def unit(prune_ratios: Array, low: float, high: float) -> Array:
    """Ratios scaled so that `low` is -1 and `high` is 1."""
    return (2 * prune_ratios - low - high) / (high - low)


def ratio(u: Array, low: float, high: float) -> Array:
    """The inverse of `unit`, clipped to [low, high]."""
    return np.clip((low + high) / 2 + u * (high - low) / 2, low, high)


def within_noise(spread_S: Array) -> bool:
    """Whether more than 5 % of the spreads under random signs reach the first, which is the observed spread."""
    return bool(np.mean(spread_S >= spread_S[0] * (1 - 1e-9)) > _FLAT_LEVEL)


def is_flat(
    prune_ratios: Sequence[Sequence[float]], losses: Sequence[Sequence[Sequence[float | None]]], generator: torch.Generator
) -> bool:
    """Whether the loss as a parabola in the ratio is within the noise of the examples.

    The spread (highest minus lowest fitted mean loss over the tried range) is compared with the spreads under random signs of each
    example's whole curve, which are equally likely if no ratio is better than another. The curve is flat if more than 5 % of them
    reach the observed spread. This accounts for the choice of the best and the worst ratio after the fact. With fewer than 6
    examples every curve is flat. The curve is a line if the ratios do not identify a parabola, and flat if no example has two
    ratios in one round, or no loss depends on the ratio.

    Args:
        prune_ratios: the measured ratios of each round.
        losses: for each round and ratio the loss of each example, [N], None if not measured; the same N examples in every round.
        generator: used only if N > 16.
    """
    ratios = [ratio for one in prune_ratios for ratio in one]
    if not ratios or max(ratios) - min(ratios) < RANK_TOLERANCE:
        return True
    scaled = [unit(np.asarray(one, dtype=np.float64), min(ratios), max(ratios)) for one in prune_ratios]
    compared = compared_within_rounds(losses, [np.stack([u, u * u], axis=1) for u in scaled])
    if compared is None:
        return True
    for degree in (2, 1):
        coefficients_ND = parts(compared.y_NM, compared.X_NMD[..., :degree])
        if coefficients_ND is not None:
            return within_noise(_spread(signed_sums(coefficients_ND, generator)))
    return True


def _spread(coefficients_SD: Float64[Array, "S D"]) -> Float64[Array, " S"]:
    """Highest minus lowest value over [-1, 1] of each `slope u + bend u^2`; of lines if D is 1."""
    slope_S = coefficients_SD[:, 0]
    bend_S = coefficients_SD[:, 1] if coefficients_SD.shape[1] == 2 else np.zeros_like(slope_S)
    bent = bend_S != 0
    vertex_S = np.where(bent, np.clip(-slope_S / np.where(bent, 2 * bend_S, 1.0), -1.0, 1.0), 1.0)
    values = np.stack([u * slope_S + u * u * bend_S for u in (-1.0, 1.0, vertex_S)])
    return values.max(axis=0) - values.min(axis=0)
