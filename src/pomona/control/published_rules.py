"""The rules of GRASP's published code (arXiv 2601.06702), each switched on by the name of its behaviour in `published.py`."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from pomona.control.base import clamp
from pomona.control.handling import Handling
from pomona.control.policy import Policy, UpdateSettings, centred_advantages
from pomona.control.rounds import Candidate, Round
from pomona.control.rules import Rules

_LEAST_VARIANCE = 1e-4
_LEAST_DEVIATION = 1e-3


@dataclass(frozen=True)
class PublishedRules(Rules):
    """`Rules` with some published behaviours instead of Pomona's.

    Args:
        on: names of these behaviours in `published.PUBLISHED`.
    """

    on: Collection[str]

    @property
    def limits_deviation(self) -> bool:
        """Unless `reinforce`."""
        return "reinforce" not in self.on

    @property
    def probes_all(self) -> bool:
        """With `all_probed`."""
        return "all_probed" in self.on

    @property
    def handling(self) -> Handling:
        """See `Handling`."""
        return Handling(
            refreshes_importance="importance_once" not in self.on,
            starts_unpruned="starts_unpruned" in self.on,
            trains_pruned="no_feedback" not in self.on,
            clears_moments_at_commits_only="moments_at_commits" in self.on,
            restarts_adam="adam_restart" in self.on,
            masks_by_adapter="masks_by_adapter" in self.on,
            prunes_ties="ties_pruned" in self.on,
        )

    def first_deviation(self, width: float) -> float:
        """`narrow_start`: a sixth of the range."""
        return width / 6 if "narrow_start" in self.on else super().first_deviation(width)

    def draw(self, n: int, generator: torch.Generator) -> list[float]:
        """`independent_draws`: no pairs."""
        if "independent_draws" in self.on:
            return torch.randn(n, generator=generator, dtype=torch.float64).tolist()
        return super().draw(n, generator)

    def rounded(self, prune_ratio: float) -> float:
        """`independent_draws`: not rounded."""
        return prune_ratio if "independent_draws" in self.on else super().rounded(prune_ratio)

    def learned(
        self,
        old: Policy,
        samples: Sequence[float],
        candidates: Sequence[float],
        rewards: Sequence[float],
        prune_ratio: float,
        settings: UpdateSettings,
    ) -> Policy:
        """`reinforce`: `reinforce_update` with the tried candidates."""
        if "reinforce" in self.on:
            least = _LEAST_VARIANCE if "variance_floor" in self.on else 0.0
            return reinforce_update(old, candidates, rewards, prune_ratio, settings, least)
        return super().learned(old, samples, candidates, rewards, prune_ratio, settings)

    def commits(self, best: Candidate, level: float) -> bool:
        """`any_gain`: without a test."""
        return super().commits(best, 0.0 if "any_gain" in self.on else level)

    def mask_ratio(self, best: Candidate, prune_ratio: float) -> float:
        """`candidate_mask`: the candidate's ratio."""
        return best.prune_ratio if "candidate_mask" in self.on else super().mask_ratio(best, prune_ratio)

    def reference(self, held: tuple[float, ...]) -> tuple[float, ...] | None:
        """`held_reference`: None, the mask in force itself."""
        return None if "held_reference" in self.on else super().reference(held)

    def answer(self, rounds: Sequence[Round], prune_ratio: float) -> float:
        """`best_reward`: the ratio with the best reward of all rounds, the first of equals."""
        if "best_reward" not in self.on or not rounds:
            return super().answer(rounds, prune_ratio)
        history = (candidate for one in rounds for candidate in one.candidates)
        return max(history, key=lambda candidate: candidate.reward).prune_ratio


def reinforce_update(
    old: Policy,
    samples: Sequence[float],
    rewards: Sequence[float],
    prune_ratio: float,
    settings: UpdateSettings,
    least_variance: float = 0.0,
) -> Policy:
    """The update of GRASP's published code, unchanged, for comparison.

    `mean += learning_rate (mean_g[a_g (x_g - mean) / deviation^2] - anchor (mean - prune_ratio))`, clamped;
    `deviation = max(1e-3, deviation + learning_rate mean_g[a_g ((x_g - mean)^2 / deviation^2 - 1)] + entropy)`,
    with `a_g = r_g - mean(r)` and the old mean and deviation on both right-hand sides; a `deviation^2` below
    `least_variance` is replaced by it.

    It is not the GRPO of the paper's text: advantages are not normalised, nothing is clipped, the "KL" is a pull towards the ratio
    in force, the entropy bonus is not scaled by the learning rate, and the deviation's slope lacks a factor 1 / deviation.

    Args:
        old: the policy that the samples were drawn from.
        samples: after clamping to the allowed ratios, [G].
        rewards: [G], finite.
        prune_ratio: the ratio in force.
        settings: settings of the update; `updates`, `clip`, `kl` and `deviation_bounds` are not used.
        least_variance: least divisor, >= 0.
    """
    m, s = old
    variance = max(s**2, least_variance)
    advantages = centred_advantages(rewards)
    d_mean = math.fsum(a * (x - m) / variance for a, x in zip(advantages, samples, strict=True)) / len(samples)
    d_deviation = math.fsum(a * ((x - m) ** 2 / variance - 1) for a, x in zip(advantages, samples, strict=True)) / len(samples)
    return Policy(
        mean=clamp(m + settings.learning_rate * (d_mean - settings.anchor * (m - prune_ratio)), *settings.mean_bounds),
        deviation=max(_LEAST_DEVIATION, s + settings.learning_rate * d_deviation + settings.entropy),
    )
