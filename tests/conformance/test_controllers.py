"""Every registered controller, driven through the loop that `control/base.py` promises."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pomona.control import Controller, ControllerState, controllers, state_from_dict, state_to_dict

# Controllers that need a parameter get one; a new controller with defaults needs no entry.
PARAMETERS: dict[str, dict[str, object]] = {"fixed": {"prune_ratio": 0.3}, "grasp": {"interval_steps": 2}}
TOTAL_STEPS = 20


@pytest.fixture(params=list(controllers))
def controller(request: pytest.FixtureRequest) -> Controller:
    return controllers.create(request.param, PARAMETERS.get(request.param))


def _losses(seed: int, step: int, prune_ratio: float) -> list[float]:
    rng = np.random.default_rng([seed, step, round(prune_ratio * 1e9)])
    return (2 + (prune_ratio - 0.5) ** 2 + rng.normal(0, 0.02, 8)).tolist()


def _drive(controller: Controller, seed: int = 0, through_json: bool = False) -> ControllerState:
    state = controller.start(seed, TOTAL_STEPS)
    in_force = state.prune_ratio
    for step in range(1, TOTAL_STEPS + 1):
        if through_json:
            state = state_from_dict(json.loads(json.dumps(state_to_dict(state))))
        if controller.round_due(state, step):
            before = state_to_dict(state)
            candidates = controller.propose(state)
            state_after = controller.observe(
                state, step, _losses(seed, step, in_force), [_losses(seed, step, p) for p in candidates]
            )
            assert state_to_dict(state) == before
            state = state_after
            committed = state.rounds[-1].mask_prune_ratio
            in_force = in_force if committed is None else committed
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
            assert candidate.reward == pytest.approx(np.mean(one.losses_before) - np.mean(candidate.losses), abs=1e-12)
    assert state.prune_ratio == in_force


def test_no_round_after_it_has_settled(controller: Controller) -> None:
    settle = controller.settle_step(TOTAL_STEPS)
    assert 0 <= settle <= TOTAL_STEPS
    assert all(one.step <= settle for one in _drive(controller).rounds)
    assert controller.passes in (1, 2)


def test_a_resumed_run_is_the_same_run(controller: Controller) -> None:
    assert _drive(controller, through_json=True) == _drive(controller)


def test_the_seed_decides_the_candidates(controller: Controller) -> None:
    one, other = controller.start(0, TOTAL_STEPS), controller.start(1, TOTAL_STEPS)
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
    for prune_ratio, reward, low, high in answer.curve:
        assert 0 <= prune_ratio <= 1
        assert low <= high
        assert low - 1e-6 <= reward <= high + 1e-6


def test_warnings_are_sentences(controller: Controller) -> None:
    state = _drive(controller)
    commits = sum(one.mask_prune_ratio is not None for one in state.rounds)
    assert all(warning.endswith(".") for warning in controller.diagnose(state, [0.05] * commits))
