"""Least squares within rounds: what the losses of all rounds say of the ratios, whatever the rounds' own levels.

Axes: M measurements (candidates and the reference mask, over all rounds), K of them in one round, N micro dev examples, D
coefficients, E = 1 + D, Q bootstrap draws.

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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64

Array = np.ndarray

RANK_TOLERANCE = 1e-6
"""Features that differ by less than this, on a scale from -1 to 1, are one."""

_BOOTSTRAP_DRAWS = 2_000
_ROUNDING = 1e-12


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
