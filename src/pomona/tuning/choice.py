"""The rule that chooses among epochs, or among trainings, by their dev scores, or by dev scores and dev loss together.

With tolerance 0: the highest mean score. A score on few examples is noisy, and the dev loss is less so. With tolerance t > 0:

    1. A candidate is out if another one is at least as good in both mean score and loss (of equals the later one is out).
    2. Let b be the remaining candidate with the highest mean score. Of the candidates c with

           mean(s_b - s_c) <= t * deviation(s_b - s_c) / sqrt(N)

       the one with the lowest loss is chosen. The right side is t standard errors of the paired difference over the N dev examples.

A candidate that is out by step 1 stays out when more candidates come, so the rule does not depend on the order of the epochs, and
only the candidates that remain must be kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Judged(NamedTuple):
    """What a candidate is chosen by.

    Args:
        scores: of the N dev examples, higher is better; N >= 1, the same examples for all candidates.
        loss: dev loss, nats per token.
    """

    scores: Sequence[float]
    loss: float

    @property
    def mean(self) -> float:
        """The mean score."""
        return math.fsum(self.scores) / len(self.scores)


def ranked(candidates: Sequence[Judged], tolerance: float = 0.0) -> list[int]:
    """The positions of the candidates that may still be chosen, the chosen one first.

    Args:
        candidates: one or more, in order.
        tolerance: t, in paired standard errors, >= 0; with 0 only the chosen one may still be chosen.
    """
    means = [one.mean for one in candidates]
    if tolerance == 0:
        return [means.index(max(means))]
    front = [place for place in range(len(candidates)) if not _is_beaten(candidates, place)]
    best = max(front, key=lambda place: means[place])
    near = [place for place in front if _is_near(candidates[best].scores, candidates[place].scores, tolerance)]
    chosen = min(near, key=lambda place: candidates[place].loss)
    return [chosen, *(place for place in front if place != chosen)]


def _is_beaten(candidates: Sequence[Judged], place: int) -> bool:
    """Whether another candidate is at least as good in score and loss."""
    mine = candidates[place].mean, -candidates[place].loss
    for other, one in enumerate(candidates):
        theirs = one.mean, -one.loss
        if other != place and all(x >= y for x, y in zip(theirs, mine, strict=True)) and (theirs != mine or other < place):
            return True
    return False


def _is_near(best: Sequence[float], scores: Sequence[float], tolerance: float) -> bool:
    """Whether the mean is at most `tolerance` standard errors of the paired difference below the best."""
    n = len(best)
    differences = [x - y for x, y in zip(best, scores, strict=True)]
    mean = math.fsum(differences) / n
    deviation = math.sqrt(math.fsum((one - mean) ** 2 for one in differences) / (n - 1)) if n > 1 else 0.0
    return mean <= tolerance * deviation / math.sqrt(n)
