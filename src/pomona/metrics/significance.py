"""Tests of whether one system is better than another on the same examples.

Axes: N examples, C clusters, S statistics, D draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float64

from pomona.metrics.base import Metric
from pomona.metrics.bootstrap import check_arguments, chunk_sizes, clustered, corpus_score, quantile_levels, resamples

if TYPE_CHECKING:
    import torch

_TIE = 1e-9


class Difference(NamedTuple):
    """A difference of two scores, the ends of its interval, and the two-sided p-value of "no difference"."""

    difference: float
    low: float
    high: float
    p_value: float


def paired_difference(
    statistics_a: Float64[np.ndarray, "N S"],
    statistics_b: Float64[np.ndarray, "N S"],
    metric: Metric,
    draws: int = 1000,
    level: float = 0.95,
    *,
    generator: torch.Generator,
    groups: Sequence[str | None] | None = None,
) -> Difference:
    """System a's score minus system b's, with a paired bootstrap interval and the p-value of approximate randomisation.

    Interval: both systems are scored on the same draws of clusters; expanded percentiles of the differences, as in
    `bootstrap.interval` (for a single cluster it is the difference itself, which means that the interval is unknown).

    p-value: in each draw the two outputs of each cluster are exchanged with probability 1/2;
    `p = (1 + draws with |difference| >= the observed one) / (1 + D)` (Noreen, "Computer-Intensive Methods for Testing Hypotheses",
    1989). If the number of all exchanges, `2 ** C`, is at most D, p is exact: the share of exchanges with such a difference. Under
    the null hypothesis, `P(p <= alpha) <= alpha`, and less if few differences are possible (exact match, few examples).

    Args:
        statistics_a: of each example of a, [N, S], N >= 1.
        statistics_b: of the same examples, in the same order, of b, [N, S].
        metric: the metric of both.
        draws: D of the interval, and the largest number of draws of the test, >= 1.
        level: of the interval, in (0, 1).
        generator: the only source of randomness.
        groups: [N]; examples of one group are drawn and exchanged together; an example with None is its own group.

    Raises:
        ValueError: shapes that differ, no examples, or an argument out of its range.
    """
    check_arguments(statistics_a, draws, level, groups)
    if statistics_a.shape != statistics_b.shape:
        raise ValueError(f"the two systems' statistics differ in shape: {statistics_a.shape} and {statistics_b.shape}")
    a_CS, sizes_C = clustered(statistics_a, groups)
    b_CS, _ = clustered(statistics_b, groups)
    observed = corpus_score(statistics_a, metric) - corpus_score(statistics_b, metric)
    differences_D = np.concatenate(
        [
            metric.aggregate(weights @ a_CS, weights @ sizes_C) - metric.aggregate(weights @ b_CS, weights @ sizes_C)
            for weights in resamples(len(sizes_C), draws, generator)
        ]
    )
    low, high = np.quantile(differences_D, quantile_levels(sizes_C, level))
    p_value = _p_value(a_CS, b_CS, float(sizes_C.sum()), metric, abs(observed), draws, generator)
    return Difference(observed, float(low), float(high), p_value)


def _p_value(
    a_CS: Float64[np.ndarray, "C S"],
    b_CS: Float64[np.ndarray, "C S"],
    examples: float,
    metric: Metric,
    observed: float,
    draws: int,
    generator: torch.Generator,
) -> float:
    """Share of the exchanges with a difference at least as large as the observed one, up to rounding."""
    total_a_S, total_b_S, change_CS = a_CS.sum(axis=0), b_CS.sum(axis=0), b_CS - a_CS
    exact = 2 ** len(a_CS) <= draws
    as_extreme = 0
    for exchanged_DC in _all_exchanges(len(a_CS)) if exact else _random_exchanges(len(a_CS), draws, generator):
        moved_DS = exchanged_DC @ change_CS
        sizes_D = np.full(len(exchanged_DC), examples)
        differences_D = metric.aggregate(total_a_S + moved_DS, sizes_D) - metric.aggregate(total_b_S - moved_DS, sizes_D)
        as_extreme += int((np.abs(differences_D) >= observed - _TIE).sum())
    return as_extreme / 2 ** len(a_CS) if exact else (1.0 + as_extreme) / (1.0 + draws)


def _all_exchanges(clusters: int) -> Iterator[Float64[np.ndarray, "D C"]]:
    """Every way to exchange the clusters' outputs, [2 ** C, C], of 0 and 1."""
    yield (np.arange(2**clusters)[:, None] >> np.arange(clusters) & 1).astype(np.float64)


def _random_exchanges(clusters: int, draws: int, generator: torch.Generator) -> Iterator[Float64[np.ndarray, "D C"]]:
    """Random exchanges, [D, C], of 0 and 1, in chunks of draws that fit in memory."""
    import torch

    for rows in chunk_sizes(clusters, draws):
        yield torch.randint(2, (rows, clusters), generator=generator).numpy().astype(np.float64)
