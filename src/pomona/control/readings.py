"""What a search has measured, as a statistical model reads it: contrasts within rounds of examples that saw the same.

Axes: N examples, M measurements (a ratio in a round), K contrasts.

Within a round every example has a level of its own that says nothing of the ratio. So only contrasts count: differences within a
round, orthonormal, one fewer than the round has measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from pomona.control.rounds import Round

Array = np.ndarray

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
