"""Whether what a controller is given can be used: its settings, and a round's losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pomona.control.rounds import ControllerState
from pomona.errors import InputError, PomonaError


def check_settings(settings: object, *rules: tuple[str, bool, str]) -> None:
    """Refuse the first setting whose rule does not hold.

    Args:
        settings: a controller or a search.
        rules: a setting's name, whether its rule holds, and the rule in words, such as "must be at least 1".

    Raises:
        InputError: a rule does not hold.
    """
    for field, holds, problem in rules:
        if not holds:
            raise InputError(problem, field=field, value=getattr(settings, field))


def check_losses(
    state: ControllerState,
    step: int,
    losses_before: Sequence[float],
    losses: Sequence[Sequence[float | None] | None],
    candidates: int,
) -> None:
    """Refuse a round's losses that do not fit its candidates, or are not finite.

    Args:
        state: before the round.
        step: optimizer steps taken so far.
        losses_before: [N], under the reference mask.
        losses: a row [N] for each proposed ratio, or None, as `Controller.observe` has them.
        candidates: how many ratios were proposed.

    Raises:
        PomonaError: a loss is not finite.
        ValueError: the losses do not fit the candidates, fewer than two were tried, or the number of micro dev examples has
            changed.
    """
    n, tried = len(losses_before), [row for row in losses if row is not None]
    if n == 0 or len(losses) != candidates or any(len(row) != n for row in tried):
        raise ValueError(f"expected {candidates} rows of {n} losses (at least 1), got rows of {[len(row) for row in tried]}")
    if len(tried) < 2 or any(all(loss is None for loss in row) for row in tried):
        raise ValueError(f"at least 2 candidates must be tried, each on an example, got {len(tried)}")
    if state.rounds and len(state.rounds[0].losses_before) != n:
        raise ValueError(f"the first round had {len(state.rounds[0].losses_before)} micro dev examples, this one has {n}")
    seen = [loss for row in (losses_before, *tried) for loss in row if loss is not None]
    check_finite(seen, f"a micro dev loss is not finite at step {step}")


def check_finite(values: Sequence[float], problem: str) -> None:
    """Raise a PomonaError that says `problem` where a value is NaN or infinite."""
    if not all(map(math.isfinite, values)):
        raise PomonaError(
            f"{problem}: the training has diverged, or an example does not fit in memory",
            fix="Lower the learning rate of the training, or use a wider number type; where memory does not hold an example, "
            "lower tuning.max_tokens",
        )
