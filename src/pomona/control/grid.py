"""The `grid` search: a run at each of a few prune ratios, and the best by dev score."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from pomona.control.base import controllers
from pomona.control.best_trial import best_trial
from pomona.control.rounds import check_settings
from pomona.control.search import Search, Trial
from pomona.ratios import Answer
from pomona.seeding import stream


@controllers.register("grid")
@dataclass(frozen=True)
class Grid(Search):
    """A whole run at each ratio of a grid, and the best by mean dev score (Adaptive LoRA Merge, arXiv 2505.24174).

    The interval goes from the lowest to the highest ratio that is not significantly worse than the best; the answer is flat if no
    ratio is significantly worse. `best_trial` has the test.

    Args:
        prune_ratios: in [0, 1], strictly rising, at least 2.

    Raises:
        InputError: the ratios are invalid.
    """

    prune_ratios: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)

    def __post_init__(self) -> None:
        ratios = self.prune_ratios
        check_settings(
            self,
            ("prune_ratios", len(ratios) >= 2, "must be at least 2 ratios"),
            ("prune_ratios", all(0.0 <= one <= 1.0 for one in ratios), "must all be in [0, 1]"),
            ("prune_ratios", all(one < after for one, after in itertools.pairwise(ratios)), "must be strictly rising"),
        )

    def next(self, trials: Sequence[Trial], seed: int) -> float | None:
        """The lowest ratio of the grid without a run."""
        tried = {trial.prune_ratio for trial in trials}
        return next((one for one in self.prune_ratios if one not in tried), None)

    def choose(self, trials: Sequence[Trial], seed: int) -> Answer:
        """`best_trial` of the grid's runs."""
        return best_trial(trials, stream(seed, "grid"))
