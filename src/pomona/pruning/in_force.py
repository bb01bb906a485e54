"""Masks in force: which ratio is, over a run, and what a mask does to the weights. Pure functions.

A mask prunes, what it prunes is kept in a stash, another mask is tried, and committed.

Legend: `W` weights, where pruned at their reset value (0 unless others are given); `stash` of W's shape, the values that pruned
entries had when they were pruned, 0 elsewhere; `mask` True = pruned, of W's shape or of its last axes: the mask [R, I] of a stack
W [K, R, I] is in force for every one of the K.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

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


class Commit(NamedTuple):
    """What `commit` returns: the new weights and stash, and which entries of the mask are newly pruned."""

    W: Float[Tensor, "*shape"]
    stash: Float[Tensor, "*shape"]
    newly_pruned: Bool[Tensor, "*mask"]


@torch.no_grad()
def restored(W: Float[Tensor, "*shape"], mask: Bool[Tensor, "*mask"], stash: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The weights with every pruned entry revived: `where(mask, stash, W)`.

    Importance for a new mask is computed on these: an entry's score at zero is 0, so it could never come back.
    """
    return torch.where(mask, stash, W)


@torch.no_grad()
def trial_values(
    W: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*mask"],
    stash: Float[Tensor, "*shape"],
    trial_mask: Bool[Tensor, "*mask"],
    reset: Float[Tensor, "*shape"] | None = None,
) -> Float[Tensor, "*shape"]:
    """The weights under a mask on trial: `reset` where `trial_mask`, else as `restored`. New tensors; nothing is changed.

    Args:
        W: weights, with `mask` in force.
        mask: in force.
        stash: of `mask`.
        trial_mask: on trial.
        reset: the values that pruned entries take; None: 0.
    """
    values = restored(W, mask, stash)
    return values.masked_fill_(trial_mask, 0.0) if reset is None else torch.where(trial_mask, reset, values)


@torch.no_grad()
def commit(
    W: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*mask"],
    stash: Float[Tensor, "*shape"],
    new_mask: Bool[Tensor, "*mask"],
    reset: Float[Tensor, "*shape"] | None = None,
) -> Commit:
    """Put `new_mask` in force. New tensors; nothing is changed.

    Newly pruned values go to the stash, revived entries get their stashed value back, entries that stay pruned keep their
    stash: committing `new_mask` and then `mask` again restores W and stash bit for bit.

    Args:
        W: weights, with `mask` in force.
        mask: in force.
        stash: of `mask`.
        new_mask: to be in force.
        reset: the values that pruned entries take, the same as at the commit before; None: 0.

    Returns:
        The new W and stash, and the mask of newly pruned entries.
    """
    values = restored(W, mask, stash)
    zero = torch.zeros((), dtype=values.dtype, device=values.device)
    return Commit(
        W=torch.where(new_mask, zero if reset is None else reset, values),
        stash=torch.where(new_mask, values, zero),
        newly_pruned=new_mask & ~mask,
    )
