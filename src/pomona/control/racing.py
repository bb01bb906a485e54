"""Which candidates are worth their probes: screened before the first one, stopped midway where they lie too far behind.

Axes: N examples seen so far, C candidates, S sign patterns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pomona.control.within_rounds import signed_sums

LEAST_SURVIVORS = 2
"""A reward is judged by the others of its group, so the two best always go on."""

_ROUNDING = 1e-12


def survivors(
    losses_before: Sequence[float], rows: Sequence[Sequence[float]], level: float, generator: torch.Generator
) -> tuple[bool, ...]:
    """Which candidates go on after the first part of the examples: those that do not lie too far behind the best.

    A candidate is stopped where the best one's lead over it is rare at `level`: were no mask better than another, each
    example's differences between them could as well have had the other sign. Which one is best is seen only after the fact, so
    its lead is compared with the largest lead of any over any other under each sign pattern, the reference mask among them (it
    widens the comparison, and is no candidate). So if all are alike, one or more is stopped with a probability of at most
    `level`.

    What is stopped depends on the examples seen, not on the others: within either part of the examples the losses are an
    unbiased sample of what they would have been, and a fit that compares each example with itself stays fair (`within_rounds.py`).

    Args:
        losses_before: of each example, under the reference mask, [N].
        rows: losses of each candidate, [C, N].
        level: in [0, 1); 0 stops none.
        generator: read only where N > 16.

    Returns:
        For each candidate whether it goes on; the two best always do.
    """
    losses_NC = np.array([*rows, losses_before], dtype=np.float64).T
    sums_SC = signed_sums(losses_NC, generator)
    largest_S = sums_SC.max(axis=1) - sums_SC.min(axis=1)
    total_C = sums_SC[0, :-1]
    lead_C = total_C - total_C.min()
    p_value_C = np.mean(largest_S[:, None] >= lead_C - _ROUNDING * np.abs(losses_NC).sum(), axis=0)
    best = np.argsort(total_C, kind="stable")[:LEAST_SURVIVORS]
    return tuple(bool(p_value > level or c in best) for c, p_value in enumerate(p_value_C))


def lowest_of_each_part(prune_ratios: Sequence[float], estimates: Sequence[float], tried: int) -> tuple[bool, ...]:
    """The ratios to try: put in order and cut into `tried` neighbouring parts, from each part the one with the lowest estimate.

    The lowest estimates of all would bunch at one end: the loss changes smoothly with the ratio, and so does its estimate, with
    its errors. A bunch tells nothing of the curve's bend, and if the estimate leans to one end, the other is never looked at
    again. With a ratio from each part the group stays as wide as the policy, and the estimate decides only between neighbours.

    Args:
        prune_ratios: proposed, [G].
        estimates: change of the loss under each by first order, [G]; lower is better.
        tried: parts, 1 to G; their sizes differ by at most 1.
    """
    order = sorted(range(len(prune_ratios)), key=lambda g: prune_ratios[g])
    parts = np.array_split(order, tried)
    chosen = {min(part.tolist(), key=lambda g: estimates[g]) for part in parts}
    return tuple(g in chosen for g in range(len(prune_ratios)))
