from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pomona.pruning import Schedule, ramp_end, scheduled_ratio

SCHEDULES = get_args(Schedule)
RAMPS = ("linear", "cubic")


def test_by_hand() -> None:
    # The ramp takes 4 of 10 steps.
    linear = [scheduled_ratio("linear", 0.8, step, 10, 0.4) for step in range(7)]
    cubic = [scheduled_ratio("cubic", 0.8, step, 10, 0.4) for step in range(7)]
    assert linear == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8], abs=1e-15)
    assert cubic == pytest.approx([0, 0.8 * 37 / 64, 0.8 * 56 / 64, 0.8 * 63 / 64, 0.8, 0.8, 0.8], abs=1e-15)
    for schedule in ("constant", "once"):
        assert {scheduled_ratio(schedule, 0.8, step, 10, 0.4) for step in range(11)} == {0.8}


def test_the_end_of_the_ramp_by_hand() -> None:
    assert [ramp_end(schedule, 30, 0.1) for schedule in ("constant", "linear", "cubic", "once")] == [1, 3, 3, 1]
    assert ramp_end("cubic", 7, 0.5) == 4
    assert ramp_end("cubic", 10, 0.7 - 0.4) == 3  # 0.29999999999999993
    assert ramp_end("linear", 5, 1.0) == 5
    assert ramp_end("linear", 5, 0.0) == 1
    assert ramp_end("linear", 1, 0.3) == 1


@given(
    schedule=st.sampled_from(SCHEDULES),
    prune_ratio=st.floats(0, 1),
    total_steps=st.integers(1, 300),
    fraction=st.floats(0, 1),
)
def test_it_never_falls_and_ends_exactly_at_the_full_ratio(
    schedule: Schedule, prune_ratio: float, total_steps: int, fraction: float
) -> None:
    end = ramp_end(schedule, total_steps, fraction)
    assert 1 <= end <= total_steps
    ratios = [scheduled_ratio(schedule, prune_ratio, step, total_steps, fraction) for step in range(total_steps + 1)]
    assert all(before <= after for before, after in pairwise(ratios))
    assert set(ratios[end:]) == {prune_ratio}
    assert ratios[0] == (prune_ratio if schedule in ("constant", "once") else 0.0)
    if prune_ratio > 1e-3 and schedule == "linear":
        assert all(ratio < prune_ratio for ratio in ratios[:end])


@given(percent=st.integers(0, 100), total_steps=st.integers(1, 5000))
def test_the_end_of_the_ramp_is_the_ceiling_in_decimal(percent: int, total_steps: int) -> None:
    assert ramp_end("cubic", total_steps, percent / 100) == max(1, math.ceil(Fraction(percent * total_steps, 100)))


@given(prune_ratio=st.floats(0, 1), end=st.integers(2, 300), step=st.integers(1, 300))
def test_cubic_is_ahead_of_linear(prune_ratio: float, end: int, step: int) -> None:
    linear, cubic = (scheduled_ratio(schedule, prune_ratio, step, end, 1.0) for schedule in RAMPS)
    assert linear <= cubic * (1 + 1e-12)
    assert cubic <= prune_ratio


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.2, 1, 10, 0.5), r"prune_ratio must be in \[0, 1\], got 1.2"),
        ((math.nan, 1, 10, 0.5), r"prune_ratio must be in \[0, 1\], got nan"),
        ((0.5, -1, 10, 0.5), "step must be >= 0, got -1"),
        ((0.5, 1, 0, 0.5), "total_steps must be >= 1, got 0"),
        ((0.5, 1, 10, 1.5), r"ramp_fraction must be in \[0, 1\], got 1.5"),
        ((0.5, 1, 10, math.nan), r"ramp_fraction must be in \[0, 1\], got nan"),
    ],
)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_values_out_of_range_are_refused(schedule: Schedule, arguments: tuple[float, int, int, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scheduled_ratio(schedule, *arguments)
