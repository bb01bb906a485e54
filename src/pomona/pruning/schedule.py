"""How the prune ratio comes into force over a run: at once, or by a ramp from 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

Schedule = Literal["constant", "linear", "cubic", "once"]


def _linear(share: float) -> float:
    return share


def _cubic(share: float) -> float:
    # Products of what only falls only fall, rounding included; a power's rounding promises nothing.
    left = 1.0 - share
    return 1.0 - left * left * left


_RAMPS: Mapping[Schedule, Callable[[float], float]] = {"linear": _linear, "cubic": _cubic}


def ramp_end(schedule: Schedule, total_steps: int, ramp_fraction: float) -> int:
    """The first step, from 1, at which the full ratio is in force: `ceil(ramp_fraction * total_steps)`; 1 without a ramp.

    The product is meant in decimal, as in `select.pruned_count`: 0.1 of 30 steps are 3, although `0.1 * 30` is above 3 in binary.

    Args:
        schedule: `constant` and `once` have no ramp.
        total_steps: optimizer steps of the run, >= 1.
        ramp_fraction: share of the steps that the ramp takes, in [0, 1].

    Raises:
        ValueError: a value is out of its range.
    """
    if total_steps < 1:
        raise ValueError(f"total_steps must be >= 1, got {total_steps!r}")
    if not 0.0 <= ramp_fraction <= 1.0:
        raise ValueError(f"ramp_fraction must be in [0, 1], got {ramp_fraction!r}")
    return max(1, math.ceil(round(ramp_fraction * total_steps, 9))) if schedule in _RAMPS else 1


def scheduled_ratio(schedule: Schedule, prune_ratio: float, step: int, total_steps: int, ramp_fraction: float) -> float:
    """The prune ratio after `step` optimizer steps; never falls, and is exactly `prune_ratio` from `ramp_end` on.

    With `t = step / ramp_end`, below 1: linear `p t`; cubic `p (1 - (1 - t)^3)`, fast at first (Zhu and Gupta 2017, "To prune,
    or not to prune", arXiv 1710.01878, from an initial ratio of 0). `constant` and `once` are `p` throughout; with `once` the
    training loop selects the mask a single time and holds it.

    Args:
        schedule: the ramp's shape.
        prune_ratio: the full ratio p, in [0, 1].
        step: optimizer steps taken, >= 0.
        total_steps: optimizer steps of the run, >= 1.
        ramp_fraction: share of the steps that the ramp takes, in [0, 1]; `constant` and `once` do not read it.

    Raises:
        ValueError: a value is out of its range.
    """
    if not 0.0 <= prune_ratio <= 1.0:
        raise ValueError(f"prune_ratio must be in [0, 1], got {prune_ratio!r}")
    if step < 0:
        raise ValueError(f"step must be >= 0, got {step!r}")
    end = ramp_end(schedule, total_steps, ramp_fraction)
    if schedule not in _RAMPS or step >= end:
        return prune_ratio
    return prune_ratio * _RAMPS[schedule](step / end)
