from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Sequence
from decimal import Decimal

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pomona.control import Grid, Tpe, Trial, controllers
from pomona.control.best_trial import best_trial
from pomona.errors import InputError
from pomona.seeding import stream

SEED = 7
PINNED = [0.6737, 0.5345, 0.5524, 0.5587, 0.133, 0.1139, 0.1026, 0.3248]


def _run(tpe: Tpe, score: Callable[[float], float], seed: int = SEED, trials: Sequence[Trial] = ()) -> list[Trial]:
    trials = list(trials)
    while (prune_ratio := tpe.next(trials, seed)) is not None:
        trials.append(Trial(prune_ratio, (score(prune_ratio),)))
    return trials


def _hill(best: float) -> Callable[[float], float]:
    return lambda prune_ratio: -1.5 * (prune_ratio - best) ** 2


def _ratios(trials: Sequence[Trial]) -> list[float]:
    return [trial.prune_ratio for trial in trials]


# What it runs -----------------------------------------------------------------------------------------------------------


@given(
    low=st.integers(0, 9_000),
    width=st.integers(0, 1_000),
    runs=st.integers(2, 5),
    startup=st.integers(1, 6),
    seed=st.integers(0, 2**63 - 1),
    salt=st.integers(0, 99),
)
@settings(deadline=None, max_examples=20)
def test_ratios_of_four_decimals_in_range_no_two_the_same(
    low: int, width: int, runs: int, startup: int, seed: int, salt: int
) -> None:
    high = low + runs - 1 + (0 if salt % 3 == 0 else width)  # of three ranges one holds no more ratios than are asked for
    tpe = Tpe(low / 10_000, high / 10_000, runs, startup)
    found = _ratios(_run(tpe, lambda prune_ratio: math.sin(1e4 * prune_ratio + salt), seed))
    assert len(set(found)) == len(found) == runs
    for prune_ratio in found:
        assert type(prune_ratio) is float  # a run's system is named by its repr
        assert tpe.prune_ratio_min <= prune_ratio <= tpe.prune_ratio_max
        assert Decimal(repr(prune_ratio)) % Decimal("0.0001") == 0


def test_a_range_between_the_decimals_is_not_left() -> None:
    tpe = Tpe(0.29001, 0.29035, trials=3)
    assert sorted(_ratios(_run(tpe, _hill(0.5)))) == [0.2901, 0.2902, 0.2903]
    with pytest.raises(InputError, match=r"prune_ratio_max: .*: 4 ratios of 4 decimals do not fit between them \(got 0\.29035\)"):
        Tpe(0.29001, 0.29035, trials=4)
    assert sorted(_ratios(_run(Tpe(0.29, 0.2901, trials=2), _hill(0.5)))) == [0.29, 0.2901]  # 0.29 * 100 is below 29


def test_a_ratio_that_was_run_gives_way_to_the_one_farthest_from_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tpe, "_propose", lambda self, tried, seed: 4000)
    assert _ratios(_run(Tpe(trials=6), _hill(0.5))) == [0.4, 0.8, 0.1, 0.6, 0.25, 0.5]


def test_the_startup_is_drawn_evenly_and_the_rest_follows_the_scores() -> None:
    tpe = Tpe(trials=6, startup_trials=3)
    one, other = _run(tpe, _hill(0.2)), _run(tpe, _hill(0.7))
    assert _ratios(one)[:3] == _ratios(other)[:3]
    assert _ratios(one)[3] != _ratios(other)[3]
    drawn = np.sort(np.array([Tpe().next([], seed) for seed in range(100)], dtype=np.float64))
    # Kolmogorov and Smirnov's distance to the even distribution: 1.63 / sqrt(100) is exceeded once in 100 draws.
    assert np.abs((drawn - 0.1) / 0.7 - (np.arange(100) + 0.5) / 100).max() < 0.163


def test_runs_have_draws_of_their_own() -> None:
    alone = [Tpe(startup_trials=8).next([Trial(0.5, (1.0,))] * runs, SEED) for runs in range(8)]
    assert len(set(alone)) == 8
    assert Tpe().next([], SEED) != Tpe().next([], SEED + 1)


# A function of the finished runs and the seed ---------------------------------------------------------------------------


def test_only_the_order_of_the_mean_scores_counts() -> None:
    trials = _run(Tpe(), _hill(0.3))[:7]
    stretched = [Trial(trial.prune_ratio, (math.exp(9 * trial.mean) - 5, math.exp(9 * trial.mean) + 5)) for trial in trials]
    assert Tpe().next(trials, SEED) == Tpe().next(stretched, SEED)
    turned = [Trial(trial.prune_ratio, (-trial.mean,)) for trial in trials]
    assert Tpe().next(trials, SEED) != Tpe().next(turned, SEED)


def test_global_random_state_is_neither_read_nor_changed() -> None:
    trials = _run(Tpe(), _hill(0.3))
    answers = []
    for state in (1, 2):
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
        for finished in (6, 2, 6, 0):  # in any order, as often as one likes
            assert Tpe().next(trials[:finished], SEED) == trials[finished].prune_ratio
        answers.append(Tpe().choose(trials, SEED))
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
        assert after == before
    assert answers[0] == answers[1]


def test_every_process_finds_the_same() -> None:
    # Found by another process, whose hashes were salted otherwise. Other ratios: another version of optuna draws otherwise.
    assert _ratios(_run(Tpe(), _hill(0.3))) == PINNED


@pytest.mark.parametrize("level", [optuna.logging.DEBUG, optuna.logging.INFO, optuna.logging.ERROR])
def test_optuna_is_silent_and_its_level_stays_what_it_was(level: int, caplog: pytest.LogCaptureFixture) -> None:
    logger, before = logging.getLogger("optuna"), optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(level)
    logger.addHandler(caplog.handler)
    try:
        Tpe().next(_run(Tpe(), _hill(0.3))[:5], SEED)
        assert optuna.logging.get_verbosity() == level
        with pytest.raises(ValueError, match="95"):
            Tpe().next([Trial(0.95, (1.0,))], SEED)  # no ratio of this search
        assert optuna.logging.get_verbosity() == level
    finally:
        logger.removeHandler(caplog.handler)
        optuna.logging.set_verbosity(before)
    assert caplog.records == []


# What it finds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", [0.25, 0.6])
def test_with_many_runs_it_homes_in_on_the_best_ratios(best: float) -> None:
    trials = [Trial(percent / 100, (_hill(best)(percent / 100),)) for percent in range(10, 81, 4)]
    found = np.array([Tpe(trials=30).next(trials, seed) for seed in range(20)])
    assert np.abs(found - best).mean() < 0.05  # of even draws 0.2


def _gain_over_even_draws(seed: int, deviation: float) -> float:
    """How much nearer to the optimum the best of eight runs is than the best of eight even draws, on average over these.

    The startup is the same for both, so that only what the model adds is compared.
    """
    rng = np.random.default_rng(seed)
    best = rng.uniform(0.2, 0.7)
    trials = _run(Tpe(), lambda prune_ratio: _hill(best)(prune_ratio) + rng.normal(0, deviation), seed)
    nearness = abs(max(trials, key=lambda trial: trial.mean).prune_ratio - best)
    start = trials[: Tpe().startup_trials]
    drawn = rng.uniform(0.1, 0.8, (500, len(trials) - len(start)))
    scores = -1.5 * (drawn - best) ** 2 + rng.normal(0, deviation, drawn.shape)
    ratios = np.hstack([np.tile(_ratios(start), (500, 1)), drawn])
    scores = np.hstack([np.tile([trial.mean for trial in start], (500, 1)), scores])
    chosen = np.take_along_axis(ratios, scores.argmax(axis=1)[:, None], axis=1)
    return float(np.abs(chosen - best).mean() - nearness)


def test_the_best_of_eight_runs_is_nearer_to_the_optimum_than_that_of_eight_even_draws() -> None:
    assert np.mean([_gain_over_even_draws(seed, deviation=0.002) for seed in range(40)]) > 0


def test_it_answers_with_the_best_of_its_runs() -> None:
    rng = np.random.default_rng(0)
    few, many = ([Trial(p / 10, tuple(rng.normal(-((p / 10 - 0.4) ** 2), 0.2, n).tolist())) for p in (7, 2, 5)] for n in (9, 30))
    assert Tpe().choose(few, SEED) == Grid().choose(few, SEED)
    assert Tpe().choose(many, SEED) == best_trial(many, stream(SEED, "tpe"))


# Its fields -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"prune_ratio_min": -0.1}, r"prune_ratio_min: must be in \[0, 1\) \(got -0\.1\)"),
        ({"prune_ratio_min": 1.0}, r"prune_ratio_min: must be in \[0, 1\) \(got 1\.0\)"),
        ({"prune_ratio_min": math.nan}, r"prune_ratio_min: must be in \[0, 1\) \(got nan\)"),
        ({"prune_ratio_max": 0.1}, r"prune_ratio_max: must be above prune_ratio_min 0\.1 and at most 1 \(got 0\.1\)"),
        ({"prune_ratio_max": 1.01}, r"prune_ratio_max: must be above prune_ratio_min 0\.1 and at most 1 \(got 1\.01\)"),
        ({"prune_ratio_max": math.nan}, r"prune_ratio_max: must be above prune_ratio_min 0\.1 and at most 1 \(got nan\)"),
        ({"trials": 1}, r"trials: must be at least 2 \(got 1\)"),
        ({"startup_trials": 0}, r"startup_trials: must be at least 1 \(got 0\)"),
        ({"prune_ratio_max": 0.1006}, r"prune_ratio_max: .*: 8 ratios of 4 decimals do not fit between them \(got 0\.1006\)"),
    ],
)
def test_a_field_out_of_its_range_is_an_input_error(parameters: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        controllers.create("tpe", parameters)


def test_a_recipe_s_values_become_a_search() -> None:
    values = {"prune_ratio_min": 0, "prune_ratio_max": 1, "trials": 5, "startup_trials": 2}
    assert TypeAdapter(Tpe).validate_python(values) == Tpe(0.0, 1.0, 5, 2)
