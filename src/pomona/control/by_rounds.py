"""When a controller that learns the ratio within a run has its rounds, and when it answers."""

from __future__ import annotations

import math
from typing import Literal

from pomona.control.base import Controller, ControllerState

Mode = Literal["single_pass", "two_pass"]


class ByRounds(Controller):
    """A controller with a round every so many optimizer steps.

    Args:
        mode: `single_pass` settles the ratio after `settle_fraction` of the run, which then finishes under it; `two_pass` (GRASP
            LoRA, arXiv 2601.06702) learns it in the whole run, for a second run from the start.
        interval_steps: optimizer steps between rounds; None is 10, as published, and 6 in a single pass, whose search is shorter.
        settle_fraction: share of the run's steps in which a single pass searches, in (0, 1).
    """

    mode: Mode
    interval_steps: int | None
    settle_fraction: float

    def round_due(self, state: ControllerState, step: int) -> bool:
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
