from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pomona.control.bayes import MOST_RATIOS, next_ratios
from pomona.control.belief import Belief, believe

LOW, HIGH = 0.1, 0.8
FIRST = [(0.0, 0.333, 0.567, 0.8)]


def _after_one_round(truth: Callable[[float], float], noise: float) -> Belief:
    rng = np.random.default_rng(1)
    level_N = rng.normal(2, 0.5, 16)
    losses = [[(level_N + truth(p) + rng.normal(0, noise, 16)).tolist() for p in FIRST[0]]]
    belief = believe(FIRST, losses, LOW, HIGH, 3)
    assert belief is not None
    return belief


@pytest.mark.parametrize("wanted", [2, 3, MOST_RATIOS])
def test_ratios_are_allowed_rising_distinct_and_a_function_of_the_seed(wanted: int) -> None:
    belief = _after_one_round(lambda p: (p - 0.4) ** 2, 0.05)
    found = next_ratios(belief, 0.0, wanted, 5)
    assert len(set(found)) == wanted
    assert list(found) == sorted(found)
    assert LOW <= found[0] <= found[-1] <= HIGH
    assert next_ratios(belief, 0.0, wanted, 5) == found


def test_the_reference_is_not_tried_again() -> None:
    belief = _after_one_round(lambda p: (p - 0.4) ** 2, 0.05)
    assert LOW not in next_ratios(belief, LOW, MOST_RATIOS, 5)


def test_a_cliff_is_bracketed_where_it_may_begin() -> None:
    """Between 0.567, still low, and 0.8, far up: nothing below tells where."""
    found = next_ratios(_after_one_round(lambda p: -0.1 * p + 2 * max(0.0, p - 0.6), 0.005), 0.0, 3, 5)
    assert sum(0.55 <= ratio <= 0.8 for ratio in found) >= 2
