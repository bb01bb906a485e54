"""The policy's update as a controller's settings make it, for the tests of those that use it."""

from __future__ import annotations

from collections.abc import Sequence

from pomona.control import Grasp
from pomona.control.policy import Policy, UpdateSettings, grpo_update

SETTINGS = UpdateSettings(
    learning_rate=0.05,
    updates=4,
    clip=0.2,
    kl=0.04,
    entropy=0.01,
    anchor=0.05,
    mean_bounds=(0.1, 0.8),
    deviation_bounds=(0.035, 0.35),
)


def climbed(controller: Grasp, old: Policy, samples: Sequence[float], rewards: Sequence[float], prune_ratio: float) -> Policy:
    """`grpo_update` over the default range of ratios, 0.1 to 0.8."""
    settings = UpdateSettings(
        learning_rate=controller.learning_rate,
        updates=controller.updates,
        clip=controller.clip,
        kl=controller.kl,
        entropy=controller.entropy,
        anchor=controller.anchor,
        mean_bounds=(0.1, 0.8),
        deviation_bounds=(0.07, 0.35),
    )
    return grpo_update(old, samples, rewards, prune_ratio, settings)
