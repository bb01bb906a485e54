from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from pomona.control import Grid, Trial, controllers
from pomona.control.best_trial import best_trial
from pomona.errors import InputError
from pomona.seeding import stream

SEED = 3


def test_it_runs_the_ratios_that_are_left_lowest_first() -> None:
    grid = Grid((0.1, 0.5, 0.7))
    trials: list[Trial] = []
    for expected in (0.1, 0.5, 0.7):
        assert grid.next(trials, SEED) == expected
        trials.append(Trial(expected, (1.0,)))
    assert grid.next(trials, SEED) is None
    assert grid.next([trials[1]], SEED) == 0.1
    assert grid.next([trials[1], trials[0]], SEED + 1) == 0.7
    assert Grid().prune_ratios == tuple(percent / 100 for percent in range(10, 81, 10))


def test_it_answers_with_the_best_of_its_runs() -> None:
    rng = np.random.default_rng(0)
    trials = [Trial(ratio, tuple(rng.normal(-((ratio - 0.4) ** 2), 0.2, 30).tolist())) for ratio in Grid().prune_ratios]
    assert Grid().choose(trials, SEED) == best_trial(trials, stream(SEED, "grid"))


@pytest.mark.parametrize(
    ("ratios", "problem"),
    [
        ([0.3], "must be at least 2 ratios"),
        ([], "must be at least 2 ratios"),
        ([0.1, 1.1], r"must all be in \[0, 1\]"),
        ([-0.1, 0.5], r"must all be in \[0, 1\]"),
        ([0.1, float("nan")], r"must all be in \[0, 1\]"),
        ([0.2, 0.2], "must be strictly rising"),
        ([0.3, 0.2], "must be strictly rising"),
    ],
)
def test_a_grid_that_is_none_is_an_input_error(ratios: list[float], problem: str) -> None:
    with pytest.raises(InputError, match=rf"prune_ratios: {problem} \(got "):
        controllers.create("grid", {"prune_ratios": tuple(ratios)})


def test_a_recipe_s_list_becomes_a_grid() -> None:
    assert TypeAdapter(Grid).validate_python({"prune_ratios": [0, 0.5, 1]}) == Grid((0.0, 0.5, 1.0))
