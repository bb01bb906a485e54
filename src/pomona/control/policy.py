"""The arithmetic of the policy: a Gaussian over the prune ratio, updated by the rewards of a group of candidates. Floats only.

GRASP LoRA (arXiv 2601.06702) proposes prune ratios from one normal distribution N(mean, deviation^2). `grpo_update` is the
group-relative policy optimisation that the paper names (as in DeepSeekMath, arXiv 2402.03300, section 4.1); its published code
differs (`published_rules.reinforce_update`). Throughout, `samples` are the draws x_g of one group, and `rewards` their rewards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from pomona.control.base import clamp

_SAME_REWARD = 1e-12


class Policy(NamedTuple):
    """N(mean, deviation^2) over the prune ratio; deviation > 0."""

    mean: float
    deviation: float


class UpdateSettings(NamedTuple):
    """Settings of a policy's update.

    Args:
        learning_rate: step size, > 0.
        updates: steps on one group, >= 1; the clip and the divergence take effect from the second on.
        clip: half-width of the trusted interval of a density ratio, in (0, 1).
        kl: weight of the divergence from the old policy, >= 0.
        entropy: weight of the entropy, >= 0.
        anchor: weight of the penalty on the distance of the mean from the ratio in force, >= 0.
        mean_bounds: lowest and highest mean.
        deviation_bounds: lowest and highest deviation.
    """

    learning_rate: float
    updates: int
    clip: float
    kl: float
    entropy: float
    anchor: float
    mean_bounds: tuple[float, float]
    deviation_bounds: tuple[float, float]


class Objective(NamedTuple):
    """The value of `objective` and its derivatives with respect to the policy's mean and deviation."""

    value: float
    d_mean: float
    d_deviation: float


def centred_advantages(rewards: Sequence[float]) -> tuple[float, ...]:
    """`a_g = r_g - mean(r)`: the group as its own baseline, in units of the reward (GRASP's published code)."""
    baseline = math.fsum(rewards) / len(rewards)
    return tuple(reward - baseline for reward in rewards)


def normalised_advantages(rewards: Sequence[float]) -> tuple[float, ...]:
    """`a_g = (r_g - mean(r)) / std(r)` with the population's deviation; all 0 if the rewards are equal (up to rounding)."""
    centred = centred_advantages(rewards)
    deviation = math.sqrt(math.fsum(a * a for a in centred) / len(centred))
    if deviation <= _SAME_REWARD * max(abs(reward) for reward in rewards):
        return (0.0,) * len(centred)
    return tuple(a / deviation for a in centred)


def log_density(x: float, policy: Policy) -> float:
    """`log N(x; mean, deviation^2) = -z^2 / 2 - log deviation - log(2 pi) / 2`, with `z = (x - mean) / deviation`."""
    z = (x - policy.mean) / policy.deviation
    return -0.5 * z * z - math.log(policy.deviation) - 0.5 * math.log(2 * math.pi)


def kl_divergence(new: Policy, old: Policy) -> float:
    """`KL(new || old) = log(s0 / s) + (s^2 + (m - m0)^2) / (2 s0^2) - 1/2` of two normals (m, s) and (m0, s0), >= 0."""
    shift = new.mean - old.mean
    spread = (new.deviation**2 + shift**2) / (2 * old.deviation**2)
    return math.log(old.deviation / new.deviation) + spread - 0.5


def objective(
    new: Policy,
    old: Policy,
    samples: Sequence[float],
    advantages: Sequence[float],
    *,
    prune_ratio: float,
    clip: float,
    kl: float,
    entropy: float,
    anchor: float,
) -> Objective:
    """The objective of one round's update, and its derivatives in closed form.

    `mean_g min(w_g a_g, clamp(w_g, 1 - clip, 1 + clip) a_g) - kl KL(new || old) + entropy log s - anchor ((m - p) / s0)^2 / 2`
    with `w_g = N(x_g; m, s^2) / N(x_g; m0, s0^2)`, new = (m, s), old = (m0, s0), p the ratio in force. `log s` is the
    entropy of the normal up to a constant. If the clamped branch is smaller, the surrogate is constant.

    Args:
        new: the policy to evaluate.
        old: the policy that the samples were drawn from.
        samples: x_g, before clamping to the allowed ratios, [G].
        advantages: a_g, [G].
        prune_ratio: the ratio in force, to which the mean is anchored.
        clip: half-width of the trusted interval of w_g, > 0.
        kl: weight of the divergence from the old policy, >= 0.
        entropy: weight of the entropy, >= 0.
        anchor: weight of the squared distance to the ratio in force, in deviations of the old policy, >= 0.
    """
    m, s = new
    value = d_mean = d_deviation = 0.0
    for x, a in zip(samples, advantages, strict=True):
        weight = math.exp(log_density(x, new) - log_density(x, old))
        clamped = min(max(weight, 1 - clip), 1 + clip)
        value += min(weight * a, clamped * a) / len(samples)
        if weight * a <= clamped * a:
            z = (x - m) / s
            d_mean += a * weight * z / s / len(samples)
            d_deviation += a * weight * (z * z - 1) / s / len(samples)
    variance = old.deviation**2
    away = m - prune_ratio
    return Objective(
        value=value - kl * kl_divergence(new, old) + entropy * math.log(s) - 0.5 * anchor * away * away / variance,
        d_mean=d_mean - kl * (m - old.mean) / variance - anchor * away / variance,
        d_deviation=d_deviation - kl * (s / variance - 1 / s) + entropy / s,
    )


def grpo_update(
    old: Policy, samples: Sequence[float], rewards: Sequence[float], prune_ratio: float, settings: UpdateSettings
) -> Policy:
    """A few ascent steps on `objective` from the old policy, with normalised advantages.

    Each step follows the natural gradient, the derivatives times the inverse Fisher information of the old policy:
    `m += learning_rate s0^2 d_mean`, `s += learning_rate s0^2 / 2 d_deviation`. So the learning rate is in deviations of
    the policy, independent of the unit of the reward and of the width of the allowed range. The plain gradient is 1 / s0^2 times
    as large: at the paper's rate one step would cross the whole range.

    Args:
        old: the policy that the samples were drawn from.
        samples: as drawn, [G].
        rewards: [G], finite.
        prune_ratio: the ratio in force.
        settings: settings of the update.
    """
    advantages = normalised_advantages(rewards)
    rate, variance = settings.learning_rate, old.deviation**2
    weights = {"clip": settings.clip, "kl": settings.kl, "entropy": settings.entropy, "anchor": settings.anchor}
    policy = old
    for _ in range(settings.updates):
        slope = objective(policy, old, samples, advantages, prune_ratio=prune_ratio, **weights)
        policy = Policy(
            mean=clamp(policy.mean + rate * variance * slope.d_mean, *settings.mean_bounds),
            deviation=clamp(policy.deviation + rate * variance / 2 * slope.d_deviation, *settings.deviation_bounds),
        )
    return policy


def antithetic(n: int, generator: torch.Generator) -> list[float]:
    """Draws of the standard normal in pairs z, -z, n in all; for odd n, the last has no partner."""
    pairs = torch.randn((n + 1) // 2, generator=generator, dtype=torch.float64).tolist()
    return [sign * z for z in pairs for sign in (1, -1)][:n]
