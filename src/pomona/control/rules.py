"""The steps of a `grasp` round that differ in the published code; here is Pomona's version."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pomona.control.base import DECIMALS
from pomona.control.handling import Handling
from pomona.control.policy import Policy, UpdateSettings, antithetic, grpo_update
from pomona.control.rounds import Candidate, Round


class Rules:
    """Rules for the draw of candidates, the update of the policy, the commit and the answer.

    `published_rules.PublishedRules` replaces them with the published code's rules.
    """

    @property
    def limits_deviation(self) -> bool:
        """Whether the policy's deviation is limited to a tenth to half of the allowed range: True."""
        return True

    @property
    def probes_all(self) -> bool:
        """Whether every candidate is probed on all examples, without screening and stopping: False."""
        return False

    @property
    def handling(self) -> Handling:
        """The handling of masks and moments: Pomona's defaults."""
        return Handling()

    def first_deviation(self, width: float) -> float:
        """The policy's default first deviation, for an allowed range of this width."""
        return width / 3

    def draw(self, n: int, generator: torch.Generator) -> list[float]:
        """`n` draws of the standard normal, in antithetic pairs."""
        return antithetic(n, generator)

    def rounded(self, prune_ratio: float) -> float:
        """A candidate or ratio in force, rounded to four decimals."""
        return round(prune_ratio, DECIMALS)

    def learned(
        self,
        old: Policy,
        samples: Sequence[float],
        candidates: Sequence[float],
        rewards: Sequence[float],
        prune_ratio: float,
        settings: UpdateSettings,
    ) -> Policy:
        """The policy after a round, by `grpo_update`.

        Args:
            old: the policy of the draws.
            samples: the tried draws, [G].
            candidates: the same draws, clamped to the allowed range and rounded.
            rewards: [G].
            prune_ratio: the ratio in force.
            settings: settings of the update.
        """
        return grpo_update(old, samples, rewards, prune_ratio, settings)

    def commits(self, best: Candidate, level: float) -> bool:
        """Whether to commit the best candidate: its gain passes a test at this level, or at level 0 is not negative."""
        return best.p_value <= level if level > 0 else best.reward >= 0

    def mask_ratio(self, best: Candidate, prune_ratio: float) -> float:
        """The ratio of the committed mask, given the new ratio in force `prune_ratio`: the same ratio."""
        return prune_ratio

    def reference(self, held: tuple[float, ...]) -> tuple[float, ...] | None:
        """The ratios of the reference mask, given those of the mask in force: a new mask of the same ratios."""
        return held

    def answer(self, rounds: Sequence[Round], prune_ratio: float) -> float:
        """The answer after these rounds, given the posterior's best ratio `prune_ratio`: the same ratio."""
        return prune_ratio
