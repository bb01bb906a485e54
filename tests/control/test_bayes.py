from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pomona.control import Bayes, ControllerState
from pomona.errors import InputError, PomonaError

PLAIN = Bayes(mode="two_pass", interval_steps=1)


def _searched(
    controller: Bayes, truth: Callable[[float], float], rounds: int = 3, noise: float = 0.02, n: int = 16, seed: int = 0
) -> ControllerState:
    rng = np.random.default_rng(seed)
    state = controller.start(seed, rounds)
    for step in range(1, rounds + 1):
        level_N = rng.normal(2, 0.5, n)
        before, *rows = (
            (level_N + truth(p) + rng.normal(0, noise, n)).tolist()
            for p in (*controller.reference(state), *controller.propose(state))
        )
        state = controller.observe(state, step, before, rows)
    return state


def test_the_optimum_is_found_in_three_rounds() -> None:
    for seed, best in enumerate((0.25, 0.5, 0.68)):
        answer = PLAIN.choose(_searched(PLAIN, lambda p, best=best: 1.5 * (p - best) ** 2, seed=seed))
        assert answer.prune_ratio == pytest.approx(best, abs=0.03)
        assert answer.low <= best <= answer.high
        assert not answer.flat


def test_ratio_0_is_looked_at_in_every_round_and_the_curve_begins_there() -> None:
    state = _searched(PLAIN, lambda p: 0.5 * (p - 0.3) ** 2)
    assert [one.reference for one in state.rounds] == [(0.0,)] * 3
    assert PLAIN.choose(state).curve[0].prune_ratio == 0.0


def test_the_first_round_is_spread_over_the_range() -> None:
    assert PLAIN.propose(PLAIN.start(0, 10)) == (0.3333, 0.5667, 0.8)
    assert replace(PLAIN, candidates=2, prune_ratio_min=0.2, prune_ratio_max=0.6).propose(PLAIN.start(0, 10)) == (0.4, 0.6)


def test_rewards_are_gains_over_no_pruning() -> None:
    state = _searched(PLAIN, lambda p: p, rounds=1, noise=0.0)
    assert [one.reward for one in state.rounds[0].candidates] == pytest.approx([-0.3333, -0.5667, -0.8])


def test_the_ratio_in_force_moves_towards_the_best_by_at_most_the_bound_and_the_mask_with_it() -> None:
    state = _searched(PLAIN, lambda p: -0.5 * p, rounds=4)
    assert [one.prune_ratio_after for one in state.rounds] == pytest.approx([0.5, 0.6, 0.7, 0.8])
    assert [one.mask_prune_ratio for one in state.rounds] == [one.prune_ratio_after for one in state.rounds]
    assert state.prune_ratio == pytest.approx(0.8)


def test_where_ratios_are_indistinguishable_nothing_is_committed_and_a_single_pass_stays_near() -> None:
    state = _searched(PLAIN, lambda p: 0.0, noise=0.05, n=5)  # of fewer than 6 examples any curve is flat
    assert [one.mask_prune_ratio for one in state.rounds] == [None] * 3
    answer = replace(PLAIN, mode="single_pass").choose(state)
    assert answer.flat
    assert abs(answer.prune_ratio - 0.40) <= 0.10 + 1e-9


def test_without_rounds_or_signal_the_answer_is_the_ratio_in_force() -> None:
    state = PLAIN.start(0, 10)
    answer = PLAIN.choose(state)
    assert (answer.prune_ratio, answer.low, answer.high, answer.flat, answer.curve) == (0.40, 0.10, 0.80, True, ())
    blind = PLAIN.observe(state, 1, [1.0, 2.0], [[1.0, 2.0]] * 3)
    assert PLAIN.choose(blind).prune_ratio == 0.40
    assert PLAIN.propose(blind) == PLAIN.propose(state)


def test_it_learns_from_a_single_example_without_being_sure() -> None:
    state = _searched(PLAIN, lambda p: (p - 0.4) ** 2, n=1)
    answer = PLAIN.choose(state)
    assert (answer.low, answer.high, answer.flat) == (0.10, 0.80, True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prune_ratio_min": 1.0}, "prune_ratio_min"),
        ({"prune_ratio_min": 0.5, "prune_ratio_max": 0.5}, "prune_ratio_max"),
        ({"prune_ratio_start": 0.05}, "prune_ratio_start"),
        ({"interval_steps": 0}, "interval_steps"),
        ({"candidates": 1}, "candidates"),
        ({"candidates": 15}, "candidates"),
        ({"max_commit_change": 0.0}, "max_commit_change"),
        ({"mode": "three_pass"}, "mode"),
        ({"settle_fraction": 1.0}, "settle_fraction"),
    ],
)
def test_a_value_out_of_range_is_one_precise_error(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Bayes(**values)  # pyright: ignore[reportArgumentType]


def test_losses_that_do_not_fit_or_are_not_finite_are_refused() -> None:
    state = PLAIN.start(0, 10)
    with pytest.raises(ValueError, match="rows"):
        PLAIN.observe(state, 1, [1.0], [[1.0]] * 2)
    with pytest.raises(PomonaError, match="not finite"):
        PLAIN.observe(state, 1, [1.0], [[1.0], [math.nan], [1.0]])
    with pytest.raises(ValueError, match="total_steps"):
        PLAIN.start(0, 0)
