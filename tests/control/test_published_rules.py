"""The published code's update of the policy, by its formula; `test_published.py` has the controller's behaviour."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.control.rule import SETTINGS

from pomona.control.policy import Policy
from pomona.control.published_rules import reinforce_update

MEAN = st.floats(0.05, 0.95)
DEVIATION = st.floats(0.02, 0.4)


@given(
    old=st.tuples(MEAN, DEVIATION),
    samples=st.lists(st.floats(0.1, 0.8), min_size=3, max_size=3),
    rewards=st.lists(st.floats(-0.05, 0.05), min_size=3, max_size=3),
    prune_ratio=st.floats(0.1, 0.8),
)
@settings(deadline=None, max_examples=100)
def test_the_published_update_is_the_published_formula(
    old: tuple[float, float], samples: list[float], rewards: list[float], prune_ratio: float
) -> None:
    mu, sigma = old
    r = sum(rewards) / 3
    step_mu = step_sigma = 0.0
    for rho, reward in zip(samples, rewards, strict=True):
        step_mu += (reward - r) * (rho - mu) / sigma**2 / 3
        step_sigma += (reward - r) * ((rho - mu) ** 2 / sigma**2 - 1) / 3
    new = reinforce_update(
        Policy(mu, sigma),
        samples,
        rewards,
        prune_ratio,
        SETTINGS,
    )
    assert new.mean == pytest.approx(min(max(mu + 0.05 * (step_mu - 0.05 * (mu - prune_ratio)), 0.1), 0.8), abs=1e-12)
    assert new.deviation == pytest.approx(max(1e-3, sigma + 0.05 * step_sigma + 0.01), abs=1e-12)


def test_the_published_deviation_has_a_floor() -> None:
    new = reinforce_update(
        Policy(0.4, 0.1),
        [0.4, 0.7],
        [9.0, 0.0],
        0.4,
        SETTINGS,
    )
    assert new.deviation == 1e-3


def test_equal_rewards_leave_the_policy_without_bonus_and_anchor() -> None:
    old, still = Policy(0.43, 0.11), SETTINGS._replace(entropy=0.0, anchor=0.0)
    assert reinforce_update(old, [0.5, 0.3, 0.6], [0.5] * 3, 0.4, still) == old
