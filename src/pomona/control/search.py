"""The interface of a search: it finds the prune ratio from whole runs, each at a fixed ratio, by their dev scores.

Like a controller, a search never sees a model. It has no state: its next step depends only on the finished runs, so an interrupted
search continues after the last finished run. The loop that drives a search:

    trials = []
    while (prune_ratio := search.next(trials, seed)) is not None:
        train from the start with this ratio fixed, and score the adapter that would be exported on each dev example
        trials.append(Trial(prune_ratio, scores))
    answer = search.choose(trials, seed)

The answer's run is one of the trials, so there is no further training.
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
        scores: score of each dev example, [N], higher is better: minus its loss, or its metric.

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
    """A way to find the prune ratio by whole runs. Subclasses are frozen dataclasses, one per file, registered in `controllers`."""

    @abstractmethod
    def next(self, trials: Sequence[Trial], seed: int) -> float | None:
        """The next ratio to run, or None if the search is finished; depends only on the arguments.

        Args:
            trials: the finished runs, in the order of the requests.
            seed: root seed of the search's random streams.
        """

    @abstractmethod
    def choose(self, trials: Sequence[Trial], seed: int) -> Answer:
        """The ratio with the best mean score, the first of equals, with its interval.

        Args:
            trials: one or more, on the same N examples.
            seed: as for `next`.

        Raises:
            ValueError: there is no trial, or their numbers of scores differ.
        """
