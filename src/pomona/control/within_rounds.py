"""What losses within rounds say, whatever the rounds' own levels: sign-flip tests, least squares, whether a curve is flat.

Axes: M measurements (candidates and the reference mask, over all rounds), K of them in one round, N micro dev examples, D
coefficients, E = 1 + D, Q bootstrap draws, S sign patterns.

Each example's loss is modelled as `loss_i(t, x) = round_effect_i(t) + c_i' x`, with features x of the ratios that were tried:
rounds differ because the weights go on learning, so only differences within a round count. The fit is by least squares to losses
y_i and features X_i from which the mean over what the example saw in that round was taken, the losses before the round among them.

Where every example saw every measurement, the fit is the mean of the examples' own fits c_i. Where a probe was stopped early, some
examples saw less than others, a few perhaps too little for a fit of their own, and it is their mean weighted by what each saw:
`c = (sum_i G_i)^-1 sum_i G_i c_i` with `G_i = X_i' X_i`, that is one least squares fit to all examples' losses with a round effect
for each example and round. `G_i c_i = X_i' y_i` needs no fit of the example: one that saw nothing to compare has weight 0, one that
saw a narrow range says little of the bend. What examples did not see is thereby taken to be as others saw it; this is fair as long
as which ratios an example saw does not depend on its own losses (`racing.py`).

The fit is linear in the losses, a sum over examples, so that a bootstrap over examples is a mean over rows.

Sign-flip permutation tests: if nothing were gained, every example's gain could as well have had the other sign. Under that
hypothesis all sign patterns of the N per-example values are equally likely. With few examples every pattern is looked at, and the
test is exact; with more, patterns are drawn. No normality is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64

Array = np.ndarray

EXACT_UP_TO = 16
"""The largest number of examples whose patterns (2^16) are all looked at."""

DRAWS = 9_999
"""How many patterns are drawn beyond that; with the pattern that was seen, p-values are multiples of 1 / 10,000."""

POINTS = 25
"""Of a fitted curve, as an answer has it."""

EDGE = 1e-6
"""An optimum this near to the end of what was tried, on the scale from -1 to 1, may as well lie beyond it."""

_FLAT_LEVEL = 0.05

RANK_TOLERANCE = 1e-6
"""Features that differ by less than this, on a scale from -1 to 1, are one."""

_BOOTSTRAP_DRAWS = 2_000
_ROUNDING = 1e-12


# Sign-flip tests


def signed_sums(values_ND: Float64[np.ndarray, "N D"], generator: torch.Generator) -> Float64[np.ndarray, "S D"]:
    """The sums over N examples under S sign patterns, [S, D]; the first is the one that was seen, all signs +1.

    Args:
        values_ND: D values of each example, N >= 1; an example's values share their sign.
        generator: read only where N > `EXACT_UP_TO`.
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
    """One-sided p-value of "the gains are not above zero": the share of patterns whose sum is at least the one seen.

    Args:
        gains: loss before minus loss after of each example, [N], N >= 1, finite.
        generator: read only where N > `EXACT_UP_TO`.

    Returns:
        In (0, 1]; the smallest possible value is 2^-N, and gains that are all 0 give 1.
    """
    values = np.asarray(gains, dtype=np.float64)
    sums = signed_sums(values[:, None], generator)[:, 0]
    return float(np.mean(sums >= sums[0] - _ROUNDING * np.abs(values).sum()))


# Least squares


class Compared(NamedTuple):
    """Losses and features less each example's mean within the round; 0 where it saw nothing, or nothing to compare."""

    y_NM: Float64[Array, "N M"]
    X_NMD: Float64[Array, "N M D"]


class Fit(NamedTuple):
    """A fit by least squares.

    Args:
        coefficients_ND: each example's part `N (sum_j G_j)^-1 X_i' y_i` of the mean over examples; its own coefficients where all
            examples saw everything.
        drawn_QD: the mean coefficients in bootstrap draws over the examples.
    """

    coefficients_ND: Float64[Array, "N D"]
    drawn_QD: Float64[Array, "Q D"]


def compared_within_rounds(
    losses: Sequence[Sequence[Sequence[float | None]]], features: Sequence[Float64[Array, "K D"]]
) -> Compared | None:
    """What the rounds compare; of the examples that saw two measurements in one round.

    Args:
        losses: for each round and measurement the loss of each example, [N], None where it was not seen; the same N in every round.
        features: for each round those of its measurements, in the same order.

    Returns:
        None where no example compared anything, or no loss depended on what was tried.
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
    """The fit to all examples; None where the features do not identify it.

    Args:
        y_NM: as `compared_within_rounds` has them.
        X_NMD: its features, or combinations of these.
        generator: draws the bootstrap samples of examples.
    """
    fitted = _least_squares(y_NM, X_NMD)
    if fitted is None:
        return None
    coefficients_ND, influence_ND = fitted
    return Fit(coefficients_ND, _bootstrap(influence_ND, generator))


def mean_fit(y_NM: Float64[Array, "N M"], X_NMD: Float64[Array, "N M D"]) -> Float64[Array, " D"] | None:
    """The coefficients of the fit to all examples; None where the features do not identify them."""
    found = parts(y_NM, X_NMD)
    return None if found is None else found.mean(axis=0)


def parts(y_NM: Float64[Array, "N M"], X_NMD: Float64[Array, "N M D"]) -> Float64[Array, "N D"] | None:
    """Each example's part of that fit, as `Fit` has them; None where the features do not identify it."""
    fitted = _least_squares(y_NM, X_NMD)
    return None if fitted is None else fitted[0]


# Whether ratios are indistinguishable


def unit(prune_ratios: Array, low: float, high: float) -> Array:
    """Ratios on the scale on which `low` is -1 and `high` is 1."""
    return (2 * prune_ratios - low - high) / (high - low)


def ratio(u: Array, low: float, high: float) -> Array:
    """The inverse of `unit`, kept within [low, high]."""
    return np.clip((low + high) / 2 + u * (high - low) / 2, low, high)


def within_noise(spread_S: Array) -> bool:
    """Whether more than 5 % of the spreads under random signs reach the first, which is the one that was seen."""
    return bool(np.mean(spread_S >= spread_S[0] * (1 - 1e-9)) > _FLAT_LEVEL)


def is_flat(
    prune_ratios: Sequence[Sequence[float]], losses: Sequence[Sequence[Sequence[float | None]]], generator: torch.Generator
) -> bool:
    """Whether the loss as a parabola in the ratio is within the noise of the examples.

    The spread (highest minus lowest fitted mean loss over what was tried) is compared with the spreads that arise when each
    example's whole curve is given a random sign: were no ratio better than another, these would be as likely as the one seen.
    Flat where more than 5 % of them reach it. Choosing the best and the worst ratio after the fact is thereby allowed for. With
    fewer than 6 examples no curve can pass. The curve is a line where the ratios do not identify a parabola; it is flat where no
    example saw two ratios in one round, or the ratio changed no loss.

    Args:
        prune_ratios: for each round the ratios that were measured.
        losses: for each round and ratio the loss of each example, [N], None where it was not seen; the same N examples in every
            round.
        generator: read only where N > 16.
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
    """Highest minus lowest value over [-1, 1] of each `slope u + bend u^2`; of lines where D is 1."""
    slope_S = coefficients_SD[:, 0]
    bend_S = coefficients_SD[:, 1] if coefficients_SD.shape[1] == 2 else np.zeros_like(slope_S)
    bent = bend_S != 0
    vertex_S = np.where(bent, np.clip(-slope_S / np.where(bent, 2 * bend_S, 1.0), -1.0, 1.0), 1.0)
    values = np.stack([u * slope_S + u * u * bend_S for u in (-1.0, 1.0, vertex_S)])
    return values.max(axis=0) - values.min(axis=0)
