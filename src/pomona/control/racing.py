"""Selection of candidates to save probes: screening before the first probe, and stopping candidates that are far behind.

Axes: N examples measured so far, C candidates, S sign patterns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pomona.control.within_rounds import signed_sums

LEAST_SURVIVORS = 2
"""A reward is compared with the others of its group, so the two best candidates always continue."""

_ROUNDING = 1e-12


def survivors(
    losses_before: Sequence[float], rows: Sequence[Sequence[float]], level: float, generator: torch.Generator
) -> tuple[bool, ...]:
    """Whether each candidate continues after the first part of the examples: not if it is significantly behind the best.

    A candidate is stopped if the best candidate's lead over it is significant at `level` by a sign-flip test: if all masks were
    equal, the signs of each example's differences would be random. Because the best is selected after the fact, its lead is
    compared with the largest lead of any mask over any other under each sign pattern, including the reference mask (which widens
    the comparison but is not a candidate). So if all masks are equal, the probability of stopping any candidate is at most `level`.

    The decision depends only on the examples measured so far. So within each part of the examples the losses are an unbiased
    sample, and a fit that compares each example with itself remains unbiased (`within_rounds.py`).

    Args:
        losses_before: loss of each example under the reference mask, [N].
        rows: losses of each candidate, [C, N].
        level: in [0, 1); 0 stops none.
        generator: used only if N > 16.

    Returns:
        For each candidate whether it continues; the two best always do.
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
    """The ratios to try: sorted and divided into `tried` contiguous parts, the ratio with the lowest estimate of each part.

    The overall lowest estimates would cluster at one end, because the loss, its estimate and the errors of the estimate change
    smoothly with the ratio. A cluster gives no information about the curvature, and if the estimate is biased towards one end, the
    other end is never tried again. With a ratio from each part the group is as wide as the policy.

    Args:
        prune_ratios: proposed, [G].
        estimates: first-order change of the loss under each ratio, [G]; lower is better.
        tried: number of parts, 1 to G; their sizes differ by at most 1.
    """
    order = sorted(range(len(prune_ratios)), key=lambda g: prune_ratios[g])
    parts = np.array_split(order, tried)
    chosen = {min(part.tolist(), key=lambda g: estimates[g]) for part in parts}
    return tuple(g in chosen for g in range(len(prune_ratios)))
