"""The confidence interval of a mean over a few runs, for new examples and new runs: variance with crossed random effects.

Axes: K runs (seeds), C clusters of examples.
Bozivich, Bancroft & Hartley, "Power of Analysis of Variance Test Procedures for Certain Incompletely Specified Models" (1956);
Satterthwaite, "An Approximate Distribution of Estimates of Variance Components" (1946).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pomona.metrics.student import student_quantile, student_tail


@dataclass(frozen=True)
class Crossed:
    """The components of the variance of a mean over runs.

    A run's score depends on its seed, on an effect of the examples that all runs share, and on an effect of the examples on this
    run alone: `variance(mean) = shared + (own + seed) / runs`. Runs differ by `between = own + seed`; the examples give `own`.

    Args:
        between: sample variance of the runs' scores, >= 0.
        shared: variance due to the examples that all runs share, >= 0.
        own: variance due to the examples that is specific to one run, >= 0.
        runs: K, >= 2.
        clusters: C, >= 2.
    """

    between: float
    shared: float
    own: float
    runs: int
    clusters: int

    @property
    def runs_alike(self) -> bool:
        """Whether the examples explain the differences between runs, so that their variance is the total variance.

        That is: `between` is below its median for seeds without an effect (Wilson and Hilferty's median of chi-square). Two runs
        are too few for this decision, unless they do not differ at all.
        """
        if self.between == 0.0:
            return True
        free = self.runs - 1
        return free > 1 and self.between < self.own * (1.0 - 2.0 / (9.0 * free)) ** 3

    @property
    def error(self) -> float:
        """Standard error of the mean over runs."""
        return math.sqrt(self.shared + self.between / self.runs)

    @property
    def degrees(self) -> float:
        """Degrees of freedom of `error`.

        Satterthwaite's `1 / degrees = sum(share ** 2 / its degrees)`, with K - 1 for the runs and C - 1 for the examples.
        Deviation: the runs' share counts only half of `shared` (for two runs, the share is not squared), because few runs estimate
        their share badly. With three runs at the 5 % level, up to 8 % of true nulls are rejected with all of it, up to 6 with half.
        """
        seeds = self.between / self.runs
        of_runs = (seeds / (seeds + self.shared / 2.0)) ** min(2, self.runs - 1)
        of_examples = self.shared / (self.shared + seeds)
        return 1.0 / (of_runs / (self.runs - 1) + of_examples**2 / (self.clusters - 1))

    def widened(self, value: float, low: float, high: float, level: float = 0.95) -> tuple[float, float]:
        """The ends of an interval for new examples and new runs; never narrower than the interval for new examples alone.

        Args:
            value: the mean over runs.
            low: lower end of the interval for these runs.
            high: upper end of the interval for these runs.
            level: in (0, 1).
        """
        if self.runs_alike:
            return low, high
        reach = student_quantile((1.0 + level) / 2.0, self.degrees) * self.error
        return min(low, value - reach), max(high, value + reach)

    def p_value(self, difference: float, p_value: float) -> float:
        """The two-sided p-value of "no difference" for new examples and new runs; never below the p-value for new examples alone.

        Args:
            difference: the mean over runs of the paired differences.
            p_value: p-value of the test for these runs.
        """
        if self.runs_alike:
            return p_value
        return max(p_value, 2.0 * student_tail(abs(difference) / self.error, self.degrees))


def crossed(scores_K: Float64[np.ndarray, " K"], left_out_CK: Float64[np.ndarray, "C K"]) -> Crossed | None:
    """The components of the variance of `scores_K.mean()`; a jackknife over clusters gives those of the examples.

    Args:
        scores_K: each run's score, or difference of paired scores, [K].
        left_out_CK: the same without one cluster, for each cluster, [C, K]; NaN if a run has no other cluster.

    Returns:
        The components; None for a single run, or with fewer than two clusters: then the variance of new runs is unknown.
    """
    left_out_CK = left_out_CK[np.isfinite(left_out_CK).all(axis=1)]
    clusters, runs = left_out_CK.shape
    if runs < 2 or clusters < 2:
        return None
    moved_CK = left_out_CK - left_out_CK.mean(axis=0)
    covariance_KK = (clusters - 1) / clusters * moved_CK.T @ moved_CK
    of_a_run = float(np.trace(covariance_KK)) / runs
    shared = max(0.0, (float(covariance_KK.sum()) / runs - of_a_run) / (runs - 1))
    return Crossed(
        between=float(np.var(scores_K, ddof=1)), shared=shared, own=max(0.0, of_a_run - shared), runs=runs, clusters=clusters
    )
