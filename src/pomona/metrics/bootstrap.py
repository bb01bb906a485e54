"""How sure a score is: the percentile bootstrap over examples, or over groups of examples that belong together.

Axes: N examples, C clusters (groups, or single examples), S statistics, D draws.
Efron, "Bootstrap Methods: Another Look at the Jackknife" (1979); Koehn, "Statistical Significance Tests for Machine Translation
Evaluation" (2004).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float64

from pomona.metrics.base import Metric

if TYPE_CHECKING:
    import torch

_CHUNK_ENTRIES = 1 << 22


class Interval(NamedTuple):
    """A score and the ends of its interval, in [0, 100]."""

    value: float
    low: float
    high: float


def interval(
    statistics: Float64[np.ndarray, "N S"],
    metric: Metric,
    draws: int = 1000,
    level: float = 0.95,
    *,
    generator: torch.Generator,
    groups: Sequence[str | None] | None = None,
) -> Interval:
    """The corpus's score with its percentile bootstrap interval.

    A draw takes C of the C clusters with replacement, adds up their statistics and scores the sum; the interval runs from the
    `(1 - level) / 2` to the `(1 + level) / 2` quantile of the draws' scores.

    Args:
        statistics: of each example, from `metric.statistics`, [N, S], N >= 1.
        metric: what made them.
        draws: D, >= 1.
        level: in (0, 1).
        generator: the only source of randomness.
        groups: [N], examples of one group are drawn together; None is a group of its own.

    Raises:
        ValueError: no examples, or an argument out of its range.
    """
    check_arguments(statistics, draws, level, groups)
    totals_CS, sizes_C = clustered(statistics, groups)
    scores_D = np.concatenate(
        [metric.aggregate(weights @ totals_CS, weights @ sizes_C) for weights in resamples(len(sizes_C), draws, generator)]
    )
    low, high = np.quantile(scores_D, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(corpus_score(statistics, metric), float(low), float(high))


def corpus_score(statistics: Float64[np.ndarray, "N S"], metric: Metric) -> float:
    """The score of all examples together, in [0, 100].

    Args:
        statistics: of each example, [N, S], N >= 1.
        metric: what made them.
    """
    return float(metric.aggregate(statistics.sum(axis=0, keepdims=True), np.array([float(len(statistics))]))[0])


def clustered(
    statistics: Float64[np.ndarray, "N S"], groups: Sequence[str | None] | None
) -> tuple[Float64[np.ndarray, "C S"], Float64[np.ndarray, " C"]]:
    """Statistics summed over each group, [C, S], and the groups' sizes, [C], in the order of first appearance."""
    if groups is None:
        return statistics, np.ones(len(statistics))
    index_of: dict[tuple[bool, str | int], int] = {}
    indices = [
        index_of.setdefault((group is None, row if group is None else group), len(index_of)) for row, group in enumerate(groups)
    ]
    totals_CS = np.zeros((len(index_of), statistics.shape[1]))
    np.add.at(totals_CS, indices, statistics)
    return totals_CS, np.bincount(indices, minlength=len(index_of)).astype(np.float64)


def resamples(clusters: int, draws: int, generator: torch.Generator) -> Iterator[Float64[np.ndarray, "D C"]]:
    """How often each cluster is in each draw, [D, C], in chunks of draws that fit in memory; each row sums to C."""
    import torch

    for rows in chunk_sizes(clusters, draws):
        picks_DC = torch.randint(clusters, (rows, clusters), generator=generator).numpy()
        cells = picks_DC + clusters * np.arange(rows)[:, None]
        yield np.bincount(cells.ravel(), minlength=rows * clusters).reshape(rows, clusters).astype(np.float64)


def chunk_sizes(clusters: int, draws: int) -> Iterator[int]:
    """How many draws to hold at a time: a function of the sizes alone, so that one seed always gives one result."""
    step = max(1, _CHUNK_ENTRIES // clusters)
    for start in range(0, draws, step):
        yield min(step, draws - start)


def check_arguments(statistics: np.ndarray, draws: int, level: float, groups: Sequence[str | None] | None) -> None:
    """Refuse what neither an interval nor a test can be made of, with a ValueError that says what it got."""
    if statistics.ndim != 2 or not len(statistics):
        raise ValueError(f"statistics must be [N, S] with N >= 1, not {statistics.shape}")
    if draws < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"draws must be >= 1 and level in (0, 1), not {draws} and {level}")
    if groups is not None and len(groups) != len(statistics):
        raise ValueError(f"{len(groups)} groups for {len(statistics)} examples")
