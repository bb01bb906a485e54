"""Paired comparisons: one system against each other one, over the same test examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pomona.evaluation.evaluate import LOSS, MeanLoss, Score
from pomona.metrics import Metric, paired_difference
from pomona.seeding import stream


@dataclass(frozen=True)
class Difference:
    """`system` minus `baseline` on one metric, with its 95 % interval and two-sided p-value."""

    system: str
    baseline: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float


def compare(
    system: str,
    against: Sequence[str],
    scores: Mapping[str, Mapping[str, Score]],
    chosen: Mapping[str, Metric],
    *,
    groups: Sequence[str] | None,
    draws: int,
    seed: int,
) -> list[Difference]:
    """The paired differences of `system` to others, on every metric and on the loss.

    Args:
        system: whose differences are wanted.
        against: the others.
        scores: system -> metric -> score, all over the same examples.
        chosen: name -> metric.
        groups: clusters of examples that share a document, or None.
        draws: bootstrap draws, and random sign flips of the test.
        seed: root of the draws.
    """
    differences = []
    for baseline in against:
        for name, metric in (*chosen.items(), (LOSS, MeanLoss())):
            ours, theirs = scores[system][name].statistics, scores[baseline][name].statistics
            generator = stream(seed, "compare", baseline)
            found = paired_difference(ours, theirs, metric, draws=draws, generator=generator, groups=groups)
            differences.append(Difference(system, baseline, name, *found))
    return differences
