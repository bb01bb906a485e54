"""Scores and paired differences over seeds, with intervals and tests that hold for new seeds where there are two or more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pomona.evaluation.scores import MeanLoss
from pomona.metrics import Metric, interval, paired_difference
from pomona.metrics.crossed import Crossed, crossed
from pomona.runs.experiments.record import Population
from pomona.runs.experiments.seed_mean import Rows, SeedMean, joined

if TYPE_CHECKING:
    import torch


class ScoreOverSeeds(NamedTuple):
    """The mean score over seeds with its 95 % interval, and how many examples count under some seed."""

    mean: float
    low: float
    high: float
    holds_for: Population
    examples: int


class DifferenceOverSeeds(NamedTuple):
    """The mean paired difference over seeds, its 95 % interval and two-sided p-value, and how many seeds and examples count."""

    difference: float
    low: float
    high: float
    p_value: float
    holds_for: Population
    seeds: int
    examples: int


def score_over_seeds(
    rows_K: Sequence[Rows], metric: Metric, clusters: Sequence[str], draws: int, generator: torch.Generator
) -> ScoreOverSeeds:
    """A system's score over the seeds that have one.

    Args:
        rows_K: K >= 1, of each seed.
        metric: what made them.
        clusters: [N], examples of one cluster are drawn together.
        draws: of the bootstrap over examples.
        generator: the only source of randomness.
    """
    scored = [one.scored for one in rows_K]
    kept = np.any(scored, axis=0)
    table_NX, groups, mean = joined(rows_K, scored, kept), _kept(clusters, kept), SeedMean(metric, len(rows_K))
    found = interval(table_NX, mean, draws, generator=generator, groups=groups)
    noise = crossed(mean.of_seeds(table_NX.sum(axis=0, keepdims=True))[0], mean.left_out(table_NX, groups))
    low, high = (found.low, found.high) if noise is None else noise.widened(*found)
    best = math.inf if isinstance(metric, MeanLoss) else 100.0
    return ScoreOverSeeds(found.value, max(low, 0.0), min(high, best), _holds_for(noise), int(kept.sum()))


def difference_over_seeds(
    ours_K: Sequence[Rows | None],
    theirs_K: Sequence[Rows | None],
    metric: Metric,
    clusters: Sequence[str],
    draws: int,
    generator: torch.Generator,
) -> DifferenceOverSeeds | None:
    """A system minus another over the seeds and examples that both have; None where there is none.

    Both are paired by seed: the difference of two runs with one seed is what varies from seed to seed.

    Args:
        ours_K: [K], None under a seed that has no score.
        theirs_K: [K], in the same order of seeds.
        metric: what made them.
        clusters: [N], examples of one cluster are drawn together.
        draws: of the bootstrap over examples, and at most of the exchanges.
        generator: the only source of randomness.
    """
    pairs = [(a, b, a.scored & b.scored) for a, b in zip(ours_K, theirs_K, strict=True) if a and b]
    pairs = [pair for pair in pairs if pair[2].any()]
    if not pairs:
        return None
    both_K = [both for _, _, both in pairs]
    kept = np.any(both_K, axis=0)
    a_NX, b_NX = joined([a for a, _, _ in pairs], both_K, kept), joined([b for _, b, _ in pairs], both_K, kept)
    groups, mean = _kept(clusters, kept), SeedMean(metric, len(pairs))
    value, low, high, p_value = paired_difference(a_NX, b_NX, mean, draws, generator=generator, groups=groups)
    a_K, b_K = (mean.of_seeds(side_NX.sum(axis=0, keepdims=True))[0] for side_NX in (a_NX, b_NX))
    noise = crossed(a_K - b_K, mean.left_out(a_NX, groups) - mean.left_out(b_NX, groups))
    if noise is not None:
        (low, high), p_value = noise.widened(value, low, high), noise.p_value(value, p_value)
    return DifferenceOverSeeds(value, low, high, p_value, _holds_for(noise), len(pairs), int(kept.sum()))


def _holds_for(noise: Crossed | None) -> Population:
    return "these_runs" if noise is None else "new_seeds"


def _kept(clusters: Sequence[str], kept: np.ndarray) -> list[str]:
    return [cluster for cluster, counts in zip(clusters, kept, strict=True) if counts]
