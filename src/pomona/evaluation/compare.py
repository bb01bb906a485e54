"""Paired comparisons: one system against each other one, over the same test examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from pomona.comparison import Comparison
from pomona.evaluation.scores import LOSS, MeanLoss, Score
from pomona.metrics import Metric, paired_difference
from pomona.metrics.holm import holm
from pomona.seeding import stream


def compare(
    system: str,
    against: Sequence[str],
    scores: Mapping[str, Mapping[str, Score]],
    chosen: Mapping[str, Metric],
    *,
    groups: Sequence[str] | None,
    draws: int,
    seed: int,
) -> list[Comparison]:
    """The paired differences of `system` to others, on every metric and on the loss, over the examples that both have a score on.

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
            if name not in scores[system] or name not in scores[baseline]:
                continue
            ours, theirs = scores[system][name], scores[baseline][name]
            both = ours.scored & theirs.scored
            if not both.any():
                continue
            found = paired_difference(
                ours.statistics[both],
                theirs.statistics[both],
                metric,
                draws=draws,
                generator=stream(seed, "compare", baseline),
                groups=[group for group, counts in zip(groups, both, strict=True) if counts] if groups else None,
            )
            differences.append(Comparison(system, baseline, name, *found, n=int(both.sum())))
    return differences


def corrected(differences: Sequence[Comparison]) -> list[Comparison]:
    """The differences with Holm's correction, each metric's comparisons being one family.

    Args:
        differences: all that are shown together.
    """
    families: dict[str, list[int]] = {}
    for place, one in enumerate(differences):
        families.setdefault(one.metric, []).append(place)
    adjusted: dict[int, float] = {}
    for places in families.values():
        adjusted |= dict(zip(places, holm([differences[place].p_value for place in places]), strict=True))
    return [dataclasses.replace(one, p_holm=adjusted[place]) for place, one in enumerate(differences)]
