"""What controllers that learn the ratio within a run share: when they have rounds, how far the ratio moves, what they warn of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pomona.control.base import Controller
from pomona.control.diagnose import diagnose_search
from pomona.control.policy import clamp
from pomona.control.rounds import S

Mode = Literal["single_pass", "two_pass"]

DECIMALS = 4
"""Of a ratio: far finer than ratios can be told apart, so that reports show what was used."""


class ByRounds(Controller[S]):
    """A controller with a round every so many optimizer steps.

    Args:
        mode: `single_pass` settles the ratio after `settle_fraction` of the run, which then finishes under it; `two_pass` (GRASP
            LoRA, arXiv 2601.06702) learns it in the whole run, for a second run from the start.
        interval_steps: optimizer steps between rounds; None is 10, as published, and 6 in a single pass, whose search is shorter.
        settle_fraction: share of the run's steps in which a single pass searches, in (0, 1).
        prune_ratio_min, prune_ratio_max: the allowed range.
        max_commit_change: most that the ratio in force moves at a time.
        has_policy: whether there is a policy, whose settings a warning may name.
    """

    mode: Mode
    interval_steps: int | None
    settle_fraction: float
    prune_ratio_min: float
    prune_ratio_max: float
    max_commit_change: float
    has_policy: ClassVar[bool] = True

    def round_due(self, state: S, step: int) -> bool:
        """Every `interval_steps` steps, up to and including `settle_step`."""
        return step % self.steps_between == 0 and step <= self.settle_step(state.total_steps)

    def settle_step(self, total_steps: int) -> int:
        """`floor(settle_fraction * total_steps)`, at least 1, in a single pass; `total_steps` in two."""
        if self.mode == "two_pass":
            return total_steps
        return max(1, math.floor(round(self.settle_fraction * total_steps, 9)))

    @property
    def passes(self) -> int:
        """1 for `single_pass`, 2 for `two_pass`."""
        return 1 if self.mode == "single_pass" else 2

    @property
    def steps_between(self) -> int:
        """Optimizer steps between rounds: `interval_steps`, or what it is by default."""
        return self.interval_steps or (10 if self.mode == "two_pass" else 6)

    def diagnose(
        self,
        state: S,
        mask_changes: Sequence[float],
        *,
        dev_check: Sequence[tuple[float, float, float]] = (),
        cleared: Sequence[float] = (),
    ) -> list[str]:
        """See `diagnose.diagnose_search`."""
        return diagnose_search(
            state,
            self.choose(state),
            mask_changes,
            first_mask=self.held_ratios(replace(state, rounds=())) if self.handling.starts_unpruned else (),
            prune_ratio_min=self.prune_ratio_min,
            prune_ratio_max=self.prune_ratio_max,
            dev_check=dev_check,
            cleared=cleared,
            policy=self.has_policy,
        )

    def _bounded(self, prune_ratio: float, towards: float) -> float:
        """The ratio in force, moved towards another one by at most `max_commit_change`."""
        return self._rounded(clamp(towards, prune_ratio - self.max_commit_change, prune_ratio + self.max_commit_change))

    def _settled(self, prune_ratio: float, best: float, *, flat: bool) -> float:
        """The answer, with this ratio in force, of a curve that is lowest at `best`."""
        return self._bounded(prune_ratio, best) if flat and self.mode == "single_pass" else self._rounded(best)

    def _rounded(self, prune_ratio: float) -> float:
        """To `DECIMALS`, within the allowed range."""
        return clamp(round(prune_ratio, DECIMALS), self.prune_ratio_min, self.prune_ratio_max)
