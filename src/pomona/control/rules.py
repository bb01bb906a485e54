"""The steps of a `grasp` round in which the published code does otherwise: here as Pomona takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pomona.control.base import DECIMALS
from pomona.control.handling import Handling
from pomona.control.policy import Policy, UpdateSettings, antithetic, grpo_update
from pomona.control.rounds import Candidate, Round


class Rules:
    """How candidates are drawn, what the policy learns from them, which one is committed, and what the answer is.

    `published_rules.PublishedRules` puts the published code's rules in place of these.
    """

    @property
    def limits_deviation(self) -> bool:
        """Whether the policy's deviation is kept from a tenth to half of the allowed range: it is."""
        return True

    @property
    def probes_all(self) -> bool:
        """Whether every candidate is probed on all examples, none screened or stopped: they are screened and raced."""
        return False

    def handling(self, *, feedback: bool) -> Handling:
        """How masks and moments are handled; `feedback` trains pruned entries."""
        return Handling(trains_pruned=feedback)

    def first_deviation(self, width: float) -> float:
        """The policy's first deviation, where none is given, in an allowed range of this width."""
        return width / 3

    def draw(self, n: int, generator: torch.Generator) -> list[float]:
        """`n` draws of the standard normal, in antithetic pairs."""
        return antithetic(n, generator)

    def rounded(self, prune_ratio: float) -> float:
        """The ratio as candidates and the ratio in force have it: to four decimals."""
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
            old: the policy that was drawn from.
            samples: those draws that were tried, [G].
            candidates: the same, clamped to the allowed range and rounded.
            rewards: [G].
            prune_ratio: the ratio in force.
            settings: of the update.
        """
        return grpo_update(old, samples, rewards, prune_ratio, settings)

    def commits(self, best: Candidate, level: float) -> bool:
        """Whether the best candidate is committed: its gain passes a test at this level; at level 0 it need not be negative."""
        return best.p_value <= level if level > 0 else best.reward >= 0

    def mask_ratio(self, best: Candidate, prune_ratio: float) -> float:
        """The ratio of the mask that is committed, when the ratio in force becomes `prune_ratio`: that ratio."""
        return prune_ratio

    def reference(self, held: tuple[float, ...]) -> tuple[float, ...] | None:
        """What the candidates are compared with where a mask of ratios `held` is in force: a fresh mask of these."""
        return held

    def answer(self, rounds: Sequence[Round], prune_ratio: float) -> float:
        """The answer after these rounds, of which the posterior prefers `prune_ratio`: that ratio."""
        return prune_ratio
