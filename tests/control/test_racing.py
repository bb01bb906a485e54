from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.control.racing import lowest_of_each_part, survivors

# Whole numbers: their sums are exact, so ties are ties.
WHOLE = st.integers(-3, 3)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def _by_counting(before: list[int], rows: list[list[int]], level: float) -> tuple[bool, ...]:
    """Plain loops over all sign patterns."""
    totals = [sum(row) for row in rows]
    two_best = sorted(range(len(rows)), key=lambda c: totals[c])[:2]
    patterns = list(product((1, -1), repeat=len(before)))
    goes_on = []
    for c, total in enumerate(totals):
        reached = 0
        for signs in patterns:
            flipped = [sum(s * loss for s, loss in zip(signs, row, strict=True)) for row in (*rows, before)]
            reached += max(a - b for a in flipped for b in flipped) >= total - min(totals)
        goes_on.append(c in two_best or reached / len(patterns) > level)
    return tuple(goes_on)


@given(
    values=st.integers(2, 4).flatmap(
        lambda c: st.lists(st.lists(WHOLE, min_size=c + 1, max_size=c + 1), min_size=1, max_size=6)  # [N, 1 + C]
    ),
    level=st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.9]),
)
@settings(deadline=None, max_examples=60)
def test_equals_counting_all_patterns(values: list[list[int]], level: float) -> None:
    before, *rows = [list(column) for column in zip(*values, strict=True)]
    assert survivors(before, rows, level, _generator()) == _by_counting(before, rows, level)


def test_by_hand() -> None:
    # The lead of 1 over the third is reached by 2 of 2^8 patterns: all signs as they are, and all turned.
    before, best, close, worse = [1.0] * 8, [1.0] * 8, [1.0] * 7 + [1.5], [2.0] * 8
    assert survivors(before, [worse, best, close], 2 / 256, _generator()) == (False, True, True)
    assert survivors(before, [worse, best, close], 1.9 / 256, _generator()) == (True, True, True)


def test_the_two_best_go_on_whatever_the_others_lead() -> None:
    rows = [[4.0] * 8, [1.0] * 8, [3.0] * 8, [2.0] * 8]
    assert survivors([1.0] * 8, rows, 0.99, _generator()) == (False, True, False, True)
    assert survivors([1.0] * 8, [[1.0] * 8, [9.0] * 8], 0.99, _generator()) == (True, True)


def test_level_zero_stops_none() -> None:
    rows = [[1.0] * 12, [1.0] * 12, [50.0] * 12]
    assert survivors([1.0] * 12, rows, 0.0, _generator()) == (True, True, True)


def test_the_examples_own_levels_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(0, 1, (5, 8)) + np.array([0, 1, 2, 3, 0.0])[:, None]
    shifted = rows + rng.normal(0, 30, 8)
    here, there = (survivors(one[4].tolist(), one[:4].tolist(), 0.1, _generator()) for one in (rows, shifted))
    assert here == there
    assert not all(here)


def test_candidates_that_do_not_differ_are_stopped_at_most_as_often_as_the_level_says() -> None:
    draws = np.random.default_rng(1).normal(size=(300, 5, 8))
    stopped = [not all(survivors(one[0].tolist(), one[1:].tolist(), 0.2, _generator())) for one in draws]
    assert 0.05 < np.mean(stopped) < 0.25


def test_many_examples_are_drawn_from_the_given_generator() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(2, 0.3, (3, 24)) + np.array([0.0, 0.0, 1.0])[:, None]
    first = survivors(rows[0].tolist(), rows.tolist(), 0.05, _generator())
    assert first == (True, True, False)
    global_state = torch.get_rng_state()
    assert survivors(rows[0].tolist(), rows.tolist(), 0.05, _generator()) == first
    assert torch.equal(torch.get_rng_state(), global_state)


def test_the_lowest_of_each_part_by_hand() -> None:
    ratios = [0.5, 0.3, 0.45, 0.35, 0.7, 0.1]  # in order: 0.1 0.3 | 0.35 0.45 | 0.5 0.7
    assert lowest_of_each_part(ratios, [1, 2, 3, 4, 5, 6], 3) == (True, True, True, False, False, False)
    assert lowest_of_each_part(ratios, [5, 6, 4, 3, 2, 1], 3) == (False, False, False, True, True, True)
    assert lowest_of_each_part(ratios, [0, 0, 0, 0, 0, -1], 1) == (False,) * 5 + (True,)
    assert lowest_of_each_part(ratios[:5], [1, 2, 3, 4, 5], 2) == (True, True, False, False, False)  # 0.3 0.35 0.45 | 0.5 0.7
    assert lowest_of_each_part(ratios, [1, 2, 3, 4, 5, 6], 6) == (True,) * 6


@given(st.lists(st.tuples(st.floats(0.1, 0.8), st.floats(-1, 1)), min_size=2, max_size=9), st.data())
@settings(deadline=None, max_examples=50)
def test_as_many_are_tried_as_asked_for_the_very_lowest_among_them(pairs: list[tuple[float, float]], data: st.DataObject) -> None:
    ratios, estimates = [one for one, _ in pairs], [one for _, one in pairs]
    tried = data.draw(st.integers(1, len(pairs)))
    chosen = lowest_of_each_part(ratios, estimates, tried)
    assert sum(chosen) == tried
    assert min(estimates) == min(one for one, kept in zip(estimates, chosen, strict=True) if kept)


def test_estimates_that_lean_to_one_end_leave_the_group_wide() -> None:
    ratios = np.random.default_rng(0).uniform(0.1, 0.8, 9)
    chosen = np.array(lowest_of_each_part(ratios.tolist(), ratios.tolist(), 3))
    assert sorted(ratios[chosen]) == pytest.approx(np.sort(ratios)[[0, 3, 6]])
