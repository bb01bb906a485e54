from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.control import Trial
from pomona.control.best_trial import best_trial
from pomona.ratios import Answer, CurvePoint

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
# Whole numbers: their sums are exact, so ties are ties.
WHOLE = st.integers(-3, 3)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def _trials(scores: Sequence[Sequence[float]], ratios: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4)) -> list[Trial]:
    return [Trial(ratio, tuple(map(float, one))) for ratio, one in zip(ratios, scores, strict=False)]


def _as_good(trials: Sequence[Trial]) -> list[float]:
    """Plain loops over all sign patterns, in whole numbers: scores are multiplied by M, so that centring keeps them whole."""
    m, n = len(trials), len(trials[0].scores)
    centred = [[m * trial.scores[i] - sum(other.scores[i] for other in trials) for i in range(n)] for trial in trials]
    totals = [sum(one) for one in centred]
    patterns = list(product((1, -1), repeat=n))
    found = []
    for trial, total in zip(trials, totals, strict=True):
        reached = 0
        for signs in patterns:
            flipped = [sum(s * value for s, value in zip(signs, one, strict=True)) for one in centred]
            reached += max(flipped) - min(flipped) >= max(totals) - total
        if reached / len(patterns) > 0.05:
            found.append(trial.prune_ratio)
    return found


def test_by_hand() -> None:
    # 6 examples: of 64 patterns 2 reach the lead of 0.2 over 0.1 (all signs as they are, and all turned), p = 1 / 32; those of
    # 0.3 are as good as those of 0.2 but for one example.
    trials = _trials([[0, 0, 0, 0, 0, 0], [4, 4, 4, 4, 4, 4], [4, 4, 4, 4, 4, 3]])
    answer = best_trial(trials, _generator())
    assert (answer.prune_ratio, answer.low, answer.high, answer.flat) == (0.2, 0.2, 0.3, False)
    half = 1.959963984540054 * (1 / 6) ** 0.5 / 6**0.5
    assert [(point.prune_ratio, point.reward) for point in answer.curve] == [
        (0.1, -4.0),
        (0.2, 0.0),
        (0.3, pytest.approx(-1 / 6)),
    ]
    assert [(point.low, point.high) for point in answer.curve] == [
        (-4.0, -4.0),
        (0.0, 0.0),
        (pytest.approx(-1 / 6 - half), pytest.approx(-1 / 6 + half)),
    ]


def test_with_five_examples_nothing_is_significant() -> None:
    trials = _trials([[0] * 5, [9] * 5])
    assert best_trial(trials, _generator()) == Answer(
        0.2, 0.1, 0.2, flat=True, curve=(CurvePoint(0.1, -9.0, -9.0, -9.0), CurvePoint(0.2, 0.0, 0.0, 0.0))
    )


def test_one_example_gives_the_best_ratio_and_no_curve() -> None:
    assert best_trial(_trials([[1], [3], [2]]), _generator()) == Answer(0.2, 0.1, 0.3, flat=True, curve=())


def test_ratios_as_good_as_the_best_need_not_be_neighbours() -> None:
    good, bad = [5, 6, 5, 6, 5, 6, 5, 6], [0, 1, 0, 1, 0, 1, 0, 1]
    answer = best_trial(_trials([good, bad, [one + 1 for one in good], bad]), _generator())
    assert (answer.prune_ratio, answer.low, answer.high, answer.flat) == (0.3, 0.1, 0.3, False)


@given(st.integers(1, 7).flatmap(lambda n: st.lists(st.lists(WHOLE, min_size=n, max_size=n), min_size=2, max_size=4)))
@settings(deadline=None, max_examples=60)
def test_equals_counting_all_patterns(scores: list[list[int]]) -> None:
    trials = _trials(scores)
    answer = best_trial(trials, _generator())
    as_good = _as_good(trials)
    means = [fmean(trial.scores) for trial in trials]
    assert answer.prune_ratio == trials[means.index(max(means))].prune_ratio
    assert (answer.low, answer.high) == (min(as_good), max(as_good))
    assert answer.flat == (len(as_good) == len(trials))


def test_the_curve_is_paired_with_the_best() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(0, 5, 30)  # what the examples have in common cancels
    trials = [Trial(ratio, tuple((common + rng.normal(-ratio, 0.1, 30)).tolist())) for ratio in (0.6, 0.1, 0.3)]
    answer = best_trial(trials, _generator())
    assert answer.prune_ratio == answer.low == answer.high == 0.1
    assert [point.prune_ratio for point in answer.curve] == [0.1, 0.3, 0.6]
    for point in answer.curve:
        (trial,) = (trial for trial in trials if trial.prune_ratio == point.prune_ratio)
        differences = [a - b for a, b in zip(trial.scores, trials[1].scores, strict=True)]
        half = 1.959963984540054 * stdev(differences) / 30**0.5
        assert (point.reward, point.low, point.high) == pytest.approx(
            (fmean(differences), fmean(differences) - half, fmean(differences) + half), abs=1e-12
        )


def test_equal_ratios_are_rarely_significant() -> None:
    rng = np.random.default_rng(1)
    told = 0
    for _ in range(200):
        scores = rng.normal(size=(10, 1)) + rng.normal(size=(10, 8))
        told += not best_trial(_trials(scores.T.tolist(), RATIOS), _generator()).flat
    # Testing each ratio against the best one by itself would say so in most of these.
    assert 0.01 < told / 200 < 0.10


def test_many_examples_are_drawn_by_the_seed_and_a_clear_optimum_is_found() -> None:
    rng = np.random.default_rng(2)
    common = rng.normal(size=50)
    ratios = RATIOS
    scores = [(common - 6 * (ratio - 0.4) ** 2 + rng.normal(0, 0.2, 50)).tolist() for ratio in ratios]
    answer = best_trial(_trials(scores, ratios), _generator())
    assert answer == best_trial(_trials(scores, ratios), _generator())
    assert not answer.flat
    assert answer.prune_ratio in (0.3, 0.4, 0.5)
    assert 0.2 <= answer.low <= answer.prune_ratio <= answer.high <= 0.6


def test_runs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match=r"equally many scores, got \[\]"):
        best_trial([], _generator())
    with pytest.raises(ValueError, match=r"equally many scores, got \[2, 1\]"):
        best_trial([Trial(0.1, (0.0, 1.0)), Trial(0.2, (0.0,))], _generator())
