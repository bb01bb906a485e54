"""What a search is: the prune ratio from whole runs, each at a fixed ratio, judged on the dev set.

Like a controller it never sees a model. It keeps no state: what it does next follows from the finished runs alone, so a search
that was interrupted goes on where it stood, run by run. The loop that drives one:

    trials = []
    while (prune_ratio := search.next(trials, seed)) is not None:
        train from the start with this ratio fixed, and score the adapter that would be exported on each dev example
        trials.append(Trial(prune_ratio, scores))
    answer = search.choose(trials, seed)

The answer's run is one of the trials: nothing is trained again.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from pomona.ratios import Answer


@dataclass(frozen=True)
class Trial:
    """One finished run at a fixed prune ratio.

    Args:
        prune_ratio: the ratio, in [0, 1].
        scores: of each dev example, [N], higher is better: minus its loss, or its metric.

    Raises:
        ValueError: there is no score, or one is not finite.
    """

    prune_ratio: float
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.scores or not all(map(math.isfinite, self.scores)):
            raise ValueError(f"the scores at prune ratio {self.prune_ratio} must be finite and at least one, got {self.scores}")

    @property
    def mean(self) -> float:
        """Mean score."""
        return math.fsum(self.scores) / len(self.scores)


class Search(ABC):
    """A way to find the prune ratio by whole runs. Subclasses are frozen dataclasses, one a file, registered in `controllers`."""

    @abstractmethod
    def next(self, trials: Sequence[Trial], seed: int) -> float | None:
        """The ratio to run next, or None where the search is done; a function of the arguments alone.

        Args:
            trials: the runs so far, in the order in which they were asked for.
            seed: root of the search's random streams.
        """

    @abstractmethod
    def choose(self, trials: Sequence[Trial], seed: int) -> Answer:
        """The ratio of the best mean score, the first of equals, and how sure it is.

        Args:
            trials: one or more, on the same N examples.
            seed: as for `next`.

        Raises:
            ValueError: there is no trial, or their numbers of scores differ.
        """
