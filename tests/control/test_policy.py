from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.control.rule import SETTINGS
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pomona.control import policy
from pomona.control.policy import Policy

MEAN = st.floats(0.05, 0.95)
DEVIATION = st.floats(0.02, 0.4)


def test_advantages_by_hand() -> None:
    assert policy.centred_advantages([1.0, 2.0, 6.0]) == (-2.0, -1.0, 3.0)
    # variance (4 + 1 + 9) / 3
    expected = [a / math.sqrt(14 / 3) for a in (-2.0, -1.0, 3.0)]
    assert policy.normalised_advantages([1.0, 2.0, 6.0]) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("rewards", [[0.0, 0.0], [0.3, 0.3, 0.3], [0.1 + 0.2, 0.3, 0.3], [-1e-9] * 3])
def test_equal_rewards_say_nothing(rewards: list[float]) -> None:
    assert policy.normalised_advantages(rewards) == (0.0,) * len(rewards)


@given(rewards=st.lists(st.floats(-5, 5), min_size=2, max_size=6), scale=st.floats(0.1, 10), shift=st.floats(-3, 3))
@settings(deadline=None)
def test_normalised_advantages_do_not_depend_on_unit_and_origin(rewards: list[float], scale: float, shift: float) -> None:
    if max(rewards) - min(rewards) < 1e-3:
        return
    moved = policy.normalised_advantages([scale * reward + shift for reward in rewards])
    assert moved == pytest.approx(policy.normalised_advantages(rewards), abs=1e-8)
    assert math.fsum(moved) == pytest.approx(0.0, abs=1e-9)
    assert math.fsum(a * a for a in moved) == pytest.approx(len(rewards), rel=1e-9)


@given(x=st.floats(0, 1), mean=MEAN, deviation=DEVIATION, mean_0=MEAN, deviation_0=DEVIATION)
@settings(deadline=None, max_examples=50)
def test_density_and_divergence_equal_torch(x: float, mean: float, deviation: float, mean_0: float, deviation_0: float) -> None:
    def normal(m: float, s: float) -> Normal:
        return Normal(torch.tensor(m, dtype=torch.float64), torch.tensor(s, dtype=torch.float64))

    new, old = normal(mean, deviation), normal(mean_0, deviation_0)
    density = new.log_prob(torch.tensor(x, dtype=torch.float64)).item()
    assert policy.log_density(x, Policy(mean, deviation)) == pytest.approx(density, rel=1e-12, abs=1e-12)
    divergence = policy.kl_divergence(Policy(mean, deviation), Policy(mean_0, deviation_0))
    assert divergence == pytest.approx(kl_divergence(new, old).item(), rel=1e-9, abs=1e-12)


def _objective_in_torch(
    m: Tensor, s: Tensor, old: Policy, samples: Sequence[float], advantages: Sequence[float], weights: dict[str, float]
) -> Tensor:
    x = torch.tensor(samples, dtype=torch.float64)
    a = torch.tensor(advantages, dtype=torch.float64)
    before = Normal(torch.tensor(old.mean, dtype=torch.float64), torch.tensor(old.deviation, dtype=torch.float64))
    after = Normal(m, s)
    w = (after.log_prob(x) - before.log_prob(x)).exp()
    surrogate = torch.minimum(w * a, w.clamp(1 - weights["clip"], 1 + weights["clip"]) * a).mean()
    away = (m - weights["prune_ratio"]) / old.deviation
    return (
        surrogate
        - weights["kl"] * kl_divergence(after, before)
        + weights["entropy"] * (after.entropy() - 0.5 * math.log(2 * math.pi * math.e))
        - weights["anchor"] * away**2 / 2
    )


@given(
    new=st.tuples(MEAN, DEVIATION),
    old=st.tuples(MEAN, DEVIATION),
    z=st.lists(st.floats(-4, 4), min_size=3, max_size=3),
    advantages=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    clip=st.floats(0.05, 0.5),
    kl=st.floats(0, 1),
    entropy=st.floats(0, 1),
    anchor=st.floats(0, 1),
    prune_ratio=st.floats(0, 1),
)
@settings(deadline=None, max_examples=100)
def test_the_gradient_equals_autograd(
    new: tuple[float, float], old: tuple[float, float], z: list[float], advantages: list[float], **weights: float
) -> None:
    samples = [old[0] + old[1] * one for one in z]
    m = torch.tensor(new[0], dtype=torch.float64, requires_grad=True)
    s = torch.tensor(new[1], dtype=torch.float64, requires_grad=True)
    expected = _objective_in_torch(m, s, Policy(*old), samples, advantages, weights)
    expected.backward()
    found = policy.objective(Policy(*new), Policy(*old), samples, advantages, **weights)
    assert m.grad is not None
    assert s.grad is not None
    assert found.value == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
    assert found.d_mean == pytest.approx(m.grad.item(), rel=1e-8, abs=1e-7)
    assert found.d_deviation == pytest.approx(s.grad.item(), rel=1e-8, abs=1e-7)


def test_the_clip_stops_a_sample_that_has_gained_enough() -> None:
    old = Policy(0.4, 0.1)
    weights = {"prune_ratio": 0.4, "clip": 0.2, "kl": 0.0, "entropy": 0.0, "anchor": 0.0}
    far = Policy(0.45, 0.1)  # the density at 0.5 has grown by exp(0.375) > 1.2, that at 0.3 has shrunk below 0.8
    assert policy.objective(far, old, [0.5], [1.0], **weights) == (1.2, 0.0, 0.0)
    assert policy.objective(far, old, [0.3], [-1.0], **weights) == (-0.8, 0.0, 0.0)
    worse = policy.objective(far, old, [0.5], [-1.0], **weights)
    assert worse.d_mean == pytest.approx(-math.exp(0.375) * 0.05 / 0.01, rel=1e-12)


def test_the_first_grpo_step_by_hand() -> None:
    # z = (1, -1, 2), advantages (1, -1, 0) * sqrt(3/2); at the old policy every weight is 1 and the divergence has no slope.
    old, a = Policy(0.4, 0.1), math.sqrt(1.5)
    only = SETTINGS._replace(updates=1)
    new = policy.grpo_update(old, [0.5, 0.3, 0.6], [3.0, 1.0, 2.0], 0.4, only)
    # mean: lr s0^2 (mean_g[a z] / s0) = 0.05 * 0.1 * 2a/3; deviation: lr s0^2/2 (mean_g[a (z^2 - 1)] / s0 + entropy / s0)
    assert new.mean == pytest.approx(0.4 + 0.05 * 0.1 * 2 * a / 3, rel=1e-14)
    assert new.deviation == pytest.approx(0.1 + 0.05 * 0.1 / 2 * 0.01, rel=1e-14)
    anchored = policy.grpo_update(old, [0.5, 0.3, 0.6], [3.0, 1.0, 2.0], 0.7, only)
    assert anchored.mean - new.mean == pytest.approx(0.05 * 0.05 * 0.3, rel=1e-12)


def test_equal_rewards_leave_the_policy_without_bonus_and_anchor() -> None:
    old = Policy(0.43, 0.11)
    still = SETTINGS._replace(entropy=0.0, anchor=0.0)
    assert policy.grpo_update(old, [0.5, 0.3, 0.6], [0.7] * 3, 0.4, still) == old


def test_updates_stay_within_the_bounds_and_the_trusted_region() -> None:
    bold = SETTINGS._replace(learning_rate=5.0, updates=20, kl=0.0)
    assert policy.grpo_update(Policy(0.79, 0.3), [0.9, 0.7], [1.0, 0.0], 0.4, bold).mean == 0.8
    long = SETTINGS._replace(updates=500, kl=0.0, anchor=0.0, entropy=0.0)
    new, old = policy.grpo_update(Policy(0.4, 0.1), [0.5, 0.3], [1.0, 0.0], 0.4, long), Policy(0.4, 0.1)
    weight = math.exp(policy.log_density(0.5, new) - policy.log_density(0.5, old))
    assert 1.2 < weight < 1.25
