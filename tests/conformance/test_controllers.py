"""Every registered controller and search, driven through the loops that `control/base.py` and `control/search.py` promise."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pomona.control import Controller, ControllerState, Grasp, Search, Trial, controllers
from pomona.control.base import ByRounds

# Controllers that need a parameter get one; a new controller with defaults needs no entry.
PARAMETERS: dict[str, dict[str, object]] = {
    "fixed": {"prune_ratio": 0.3},
    "grasp": {"interval_steps": 2},
    "layerwise": {"interval_steps": 2},
}
TOTAL_STEPS = 20
MOST_RUNS = 100


@pytest.fixture(params=[name for name in controllers if issubclass(controllers[name], Controller)])
def controller(request: pytest.FixtureRequest) -> Controller:
    made = controllers.create(request.param, PARAMETERS.get(request.param))
    assert isinstance(made, Controller)
    return made


@pytest.fixture(params=[name for name in controllers if issubclass(controllers[name], Search)])
def search(request: pytest.FixtureRequest) -> Search:
    made = controllers.create(request.param, PARAMETERS.get(request.param))
    assert isinstance(made, Search)
    return made


def _losses(seed: int, step: int, prune_ratio: float) -> list[float]:
    rng = np.random.default_rng([seed, step, round(prune_ratio * 1e9)])
    return (2 + (prune_ratio - 0.5) ** 2 + rng.normal(0, 0.02, 8)).tolist()


def _share(state: ControllerState, ratios: Sequence[float]) -> float:
    """The share of all entries that these ratios prune, one for each group of layers or one alone."""
    return sum(share * ratio for share, ratio in zip(state.shares, ratios, strict=True))


def _drive(controller: Controller, seed: int = 0, through_json: bool = False) -> ControllerState:
    state = controller.start(seed, TOTAL_STEPS)
    for step in range(1, TOTAL_STEPS + 1):
        if through_json:
            state = controller.load_state(json.loads(json.dumps(dataclasses.asdict(state))))
        if controller.round_due(state, step):
            before = dataclasses.asdict(state)
            candidates, reference = (
                controller.propose(state),
                _share(state, controller.reference(state) or controller.held_ratios(state)),
            )
            state_after = controller.observe(
                state, step, _losses(seed, step, reference), [_losses(seed, step, p) for p in candidates]
            )
            assert dataclasses.asdict(state) == before
            state = state_after
    return state


def test_rounds_record_what_happened(controller: Controller) -> None:
    state = _drive(controller)
    due = [step for step in range(1, TOTAL_STEPS + 1) if controller.round_due(state, step)]
    assert [one.step for one in state.rounds] == due
    assert [one.index for one in state.rounds] == list(range(len(due)))
    in_force = controller.start(0, TOTAL_STEPS).prune_ratio
    for one in state.rounds:
        assert one.prune_ratio_before == in_force
        in_force = one.prune_ratio_after
        for candidate in one.candidates:
            assert 0 <= candidate.prune_ratio <= 1
            assert 0 < candidate.p_value <= 1
            gains = [before - loss for before, loss in zip(one.losses_before, candidate.losses, strict=True) if loss is not None]
            assert candidate.reward == pytest.approx(np.mean(gains), abs=1e-12)
    assert state.prune_ratio == in_force


@pytest.mark.parametrize("paper", [False, True])
def test_rounds_record_what_the_candidates_were_compared_with(controller: Controller, paper: bool) -> None:
    """A fresh mask of the ratios in force or of ratio 0; None, in published behaviour, is the mask that was committed last."""
    if paper:
        if not isinstance(controller, Grasp) or controller.layer_groups > 1:
            pytest.skip("has no published behaviour")
        controller = dataclasses.replace(controller, paper=True, mode="two_pass")
    state: Any = _drive(controller)
    assert (controller.reference(state) is None) == paper
    held = controller.held_ratios(controller.start(0, TOTAL_STEPS))
    for one in state.rounds:
        assert len(one.reference) == controller.layer_groups
        if paper:
            assert one.reference == held
        else:
            assert _share(state, one.reference) in (0.0, pytest.approx(one.prune_ratio_before))
        held = one.mask_ratios or held


def test_candidates_and_ratios_in_force_are_as_many_as_groups(controller: Controller) -> None:
    shares = tuple((k + 1) / sum(range(1, controller.layer_groups + 1)) for k in range(controller.layer_groups))
    state = controller.start(0, TOTAL_STEPS, shares)
    assert len(state.ratios) == len(controller.choose(state).ratios) == controller.layer_groups
    by_group = controller.propose_by_group(state)
    assert all(len(one) == controller.layer_groups for one in by_group)
    means = [sum(share * ratio for share, ratio in zip(shares, one, strict=True)) for one in by_group]
    assert controller.propose(state) == pytest.approx(means)


def test_no_round_after_it_has_settled(controller: Controller) -> None:
    settle = controller.settle_step(TOTAL_STEPS)
    assert 0 <= settle <= TOTAL_STEPS
    assert all(one.step <= settle for one in _drive(controller).rounds)
    assert controller.passes in (1, 2)


def test_a_resumed_run_is_the_same_run(controller: Controller) -> None:
    assert _drive(controller, through_json=True) == _drive(controller)


def test_the_seed_decides_the_candidates(controller: Controller) -> None:
    one = _drive(controller)
    other = dataclasses.replace(one, seed=1)
    assert controller.propose(one) == controller.propose(one)
    assert controller.propose(one) == () or controller.propose(one) != controller.propose(other)


@pytest.mark.parametrize("rounds", [True, False])
def test_the_answer_is_a_ratio_within_its_interval(controller: Controller, rounds: bool) -> None:
    state = _drive(controller) if rounds else controller.start(0, TOTAL_STEPS)
    answer = controller.choose(state)
    assert 0 <= answer.low <= answer.prune_ratio <= answer.high <= 1
    assert answer == controller.choose(state)
    if not rounds:
        assert answer.prune_ratio == state.prune_ratio
        assert answer.curve == ()
    for point in answer.curve:
        assert 0 <= point.prune_ratio <= 1
        assert point.low <= point.high
        assert point.low - 1e-6 <= point.reward <= point.high + 1e-6


def test_a_search_that_went_wrong_is_warned_of_in_sentences(controller: Controller) -> None:
    """Without a round, and with masks that change far more than the ratio; a given ratio is warned of in no case."""
    state, start = _drive(controller), controller.start(0, TOTAL_STEPS)
    commits = sum(one.mask_prune_ratio is not None for one in state.rounds)
    untold, calm, restless = (
        controller.diagnose(start, []),
        controller.diagnose(state, [0.0] * commits),
        controller.diagnose(state, [1.0] * commits),
    )
    if not state.rounds:
        assert (untold, calm) == ([], [])
    elif isinstance(controller, ByRounds):
        assert len(untold) >= 1
        assert "round" in untold[0]
        assert (len(set(restless) - set(calm)) >= 1) is (commits > 0)
    for warning in {*untold, *calm, *restless}:
        assert warning[0].isupper() or warning[0].isdigit()
        assert warning.endswith(".")
        assert "\n" not in warning
        assert len(warning) > 40


def _trial(seed: int, prune_ratio: float) -> Trial:
    return Trial(prune_ratio, tuple(-loss for loss in _losses(seed, 0, prune_ratio)))


def _run(search: Search, seed: int = 0, trials: Sequence[Trial] = ()) -> list[Trial]:
    trials = list(trials)
    while (prune_ratio := search.next(trials, seed)) is not None:
        assert 0 <= prune_ratio <= 1
        trials.append(_trial(seed, prune_ratio))
        assert len(trials) <= MOST_RUNS
    return trials


def test_everything_registered_is_one_of_the_two() -> None:
    for name in controllers:
        assert issubclass(controllers[name], Controller) != issubclass(controllers[name], Search)


def test_a_search_ends_and_a_resumed_one_is_the_same(search: Search) -> None:
    trials = _run(search)
    assert len(trials) >= 2
    assert search.next(trials, 0) is None
    for finished in range(len(trials)):
        assert _run(search, trials=trials[:finished]) == trials


@pytest.mark.parametrize("seed", range(5))
def test_a_search_answers_with_its_best_trial(search: Search, seed: int) -> None:
    trials = _run(search, seed)
    answer = search.choose(trials, seed)
    assert answer == search.choose(trials, seed)
    means = [np.mean(trial.scores) for trial in trials]
    assert answer.prune_ratio == trials[int(np.argmax(means))].prune_ratio
    assert 0 <= answer.low <= answer.prune_ratio <= answer.high <= 1
    for point in answer.curve:
        assert 0 <= point.prune_ratio <= 1
        assert point.low <= point.reward <= point.high


def test_a_search_of_equal_trials_answers_with_the_first_and_says_that_it_is_flat(search: Search) -> None:
    trials = [Trial(trial.prune_ratio, (-2.0, -1.5, -3.25, -0.1, -0.2, -0.3, -0.4)) for trial in _run(search)]
    answer = search.choose(trials, 0)
    assert answer.prune_ratio == trials[0].prune_ratio
    assert answer.flat


def test_a_search_refuses_what_it_cannot_compare(search: Search) -> None:
    trials = _run(search)
    with pytest.raises(ValueError, match=r"equally many scores, got \[\]"):
        search.choose([], 0)
    with pytest.raises(ValueError, match=r"equally many scores, got \[8, 1\]"):
        search.choose([trials[0], Trial(trials[1].prune_ratio, (0.0,))], 0)
