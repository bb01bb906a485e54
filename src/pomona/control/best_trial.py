"""The result of finished runs: the best prune ratio, the ratios not significantly worse, and the differences to the best.

Axes: N dev examples, M ratios, S sign patterns.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Float64

from pomona.control.search import Trial
from pomona.control.within_rounds import signed_sums
from pomona.ratios import Answer, CurvePoint

_LEVEL = 0.05
_QUANTILE = NormalDist().inv_cdf(0.975)
_ROUNDING = 1e-12


def best_trial(trials: Sequence[Trial], generator: torch.Generator) -> Answer:
    """The best ratio, the interval of ratios not significantly worse, and each ratio's mean difference to the best.

    The interval goes from the lowest to the highest ratio that is not significantly worse than the best ratio: a sign-flip test of
    the paired per-example scores at level 0.05. Because the best of several ratios is selected after the fact, its lead is compared
    with the largest lead of any ratio over any other under each sign pattern. The answer is flat if none is significantly worse.

    The differences' intervals are paired and normal, `mean +- 1.96 s / sqrt(N)` with s the deviation of the N differences, for
    each ratio separately; with one example there is no curve. With fewer than 6 examples no difference can be significant.

    Args:
        trials: one or more, on the same N examples.
        generator: used only if N is above `within_rounds.EXACT_UP_TO`.

    Raises:
        ValueError: there is no trial, or their numbers of scores differ.
    """
    if not trials or len({len(trial.scores) for trial in trials}) > 1:
        raise ValueError(f"need trials with equally many scores, got {[len(trial.scores) for trial in trials]}")
    best = max(trials, key=lambda trial: trial.mean)  # the first of equals
    scores_NM = np.array([trial.scores for trial in trials], dtype=np.float64).T
    p_value_M = _p_values(scores_NM, trials.index(best), generator)
    as_good = [trial.prune_ratio for trial, p_value in zip(trials, p_value_M, strict=True) if p_value > _LEVEL]
    return Answer(
        prune_ratio=best.prune_ratio,
        low=min(as_good),
        high=max(as_good),
        flat=len(as_good) == len(trials),
        curve=_differences(trials, best),
    )


def _p_values(scores_NM: Float64[np.ndarray, "N M"], best: int, generator: torch.Generator) -> Float64[np.ndarray, " M"]:
    """For each ratio, the share of sign patterns whose largest lead of any ratio reaches the best ratio's lead over this ratio.

    If the ratios did not differ, the sign of each example's differences would be random. Because the largest lead is compared, the
    p-values are valid for all ratios together, whichever is the best.
    """
    sums_SM = signed_sums(scores_NM, generator)
    largest_S = sums_SM.max(axis=1) - sums_SM.min(axis=1)
    lead_M = sums_SM[0, best] - sums_SM[0]
    return np.mean(largest_S[:, None] >= lead_M - _ROUNDING * np.abs(scores_NM).sum(), axis=0)


def _differences(trials: Sequence[Trial], best: Trial) -> tuple[CurvePoint, ...]:
    """The mean difference of each ratio's scores to the best ratio's, in order of the ratio."""
    n = len(best.scores)
    if n == 1:
        return ()
    points = []
    for trial in sorted(trials, key=lambda trial: trial.prune_ratio):
        difference_N = np.subtract(trial.scores, best.scores)
        mean, half = float(difference_N.mean()), _QUANTILE * float(difference_N.std(ddof=1)) / n**0.5
        points.append(CurvePoint(trial.prune_ratio, mean, mean - half, mean + half))
    return tuple(points)
