from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.control import Candidate, ControllerState, Fixed, Handling, Round, state_from_dict, state_to_dict
from pomona.errors import InputError

ANY = st.floats(allow_nan=False, allow_infinity=False)
LOSSES = st.lists(ANY, max_size=4).map(tuple)
SEEN = st.lists(st.none() | ANY, max_size=4).map(tuple)
CANDIDATES = st.lists(st.builds(Candidate, prune_ratio=ANY, losses=SEEN, reward=ANY, p_value=ANY), max_size=3).map(tuple)
ROUNDS = st.builds(
    Round,
    index=st.integers(0, 99),
    step=st.integers(0, 10**6),
    losses_before=LOSSES,
    candidates=CANDIDATES,
    prune_ratio_before=ANY,
    prune_ratio_after=ANY,
    mask_prune_ratio=st.none() | ANY,
    mean=ANY,
    deviation=ANY,
    reference=st.lists(ANY, min_size=1, max_size=3).map(tuple),
)
STATES = st.builds(
    ControllerState,
    seed=st.integers(0, 2**63),
    total_steps=st.integers(1, 10**6),
    mean=ANY,
    deviation=ANY,
    prune_ratio=ANY,
    rounds=st.lists(ROUNDS, max_size=3).map(tuple),
)


@given(STATES)
@settings(deadline=None, max_examples=60)
def test_a_state_survives_json_exactly(state: ControllerState) -> None:
    assert state_from_dict(json.loads(json.dumps(state_to_dict(state)))) == state


def _values() -> dict:
    candidate = Candidate(0.5, (1.0, 2.0), 0.25, 0.125)
    one = Round(0, 10, (1.5, 2.0), (candidate,), 0.4, 0.5, 0.5, 0.41, 0.1, (0.4,))
    return json.loads(json.dumps(state_to_dict(ControllerState(3, 40, 0.41, 0.1, 0.5, (one,)))))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v.update(sed=1), r"state: unknown key \(got 'sed'\)\. Did you mean 'seed'"),
        (lambda v: v.pop("rounds"), "state: the key 'rounds' is missing"),
        (lambda v: v["rounds"][0].pop("step"), r"state\.rounds\[0\]: the key 'step' is missing"),
        (
            lambda v: v["rounds"][0]["candidates"][0].update(loss=1),
            r"state\.rounds\[0\]\.candidates\[0\]: unknown key \(got 'loss'\)",
        ),
        (lambda v: v.update(seed=1.5), r"state\.seed: must be a whole number \(got 1\.5\)"),
        (lambda v: v.update(mean="0.4"), r"state\.mean: must be a number \(got '0\.4'\)"),
        (lambda v: v.update(mean=None), r"state\.mean: must be a number \(got None\)"),
        (lambda v: v.update(total_steps=True), r"state\.total_steps: must be a whole number \(got True\)"),
        (lambda v: v.update(rounds={}), r"state\.rounds: must be a list"),
        (lambda v: v.update(rounds=[7]), r"state\.rounds\[0\]: must be a mapping \(got 7\)"),
        (
            lambda v: v["rounds"][0]["losses_before"].append("x"),
            r"state\.rounds\[0\]\.losses_before\[2\]: must be a number \(got 'x'\)",
        ),
    ],
)
def test_a_spoiled_state_is_one_precise_error(spoil: Callable[[dict], object], message: str) -> None:
    values = _values()
    spoil(values)
    with pytest.raises(InputError, match=message):
        state_from_dict(values)


def test_what_was_not_seen_stays_unseen() -> None:
    values = _values()
    values["rounds"][0]["candidates"][0]["losses"] = [None, 2.0]
    candidate = state_from_dict(values).rounds[0].candidates[0]
    assert candidate.losses == (None, 2.0)
    assert candidate.seen == 1
    values["rounds"][0]["losses_before"] = [None, 2.0]
    with pytest.raises(InputError, match=r"losses_before\[0\]: must be a number \(got None\)"):
        state_from_dict(values)


def test_a_candidate_is_judged_by_the_examples_it_saw() -> None:
    candidate = Candidate.measured(0.3, [2.0, 1.0, 3.0, 1.5], [1.0, None, 2.5, 2.0], torch.Generator())
    # Gains 1, 0.5, -0.5: of 8 sign patterns these three reach their sum of 1: as they are, with +0.5, and with -0.5 and +0.5.
    assert candidate == Candidate(0.3, (1.0, None, 2.5, 2.0), reward=1 / 3, p_value=3 / 8)


def test_by_default_candidates_are_compared_with_the_ratios_in_force() -> None:
    by_group = Fixed((0.3, 0.1))
    assert Fixed(0.3).reference(Fixed(0.3).start(0, 10)) == (0.3,)
    assert by_group.reference(by_group.start(0, 10)) == (0.3, 0.1)


@dataclasses.dataclass(frozen=True)
class Unpruned(Fixed):
    """Has no mask before its first commit."""

    @property
    def handling(self) -> Handling:
        return Handling(starts_unpruned=True)


def test_the_mask_in_force_is_the_last_one_committed() -> None:
    state = dataclasses.replace(state_from_dict(_values()), prune_ratio=0.45)
    (one,) = state.rounds
    assert one.mask_prune_ratio == 0.5
    nothing = dataclasses.replace(one, mask_prune_ratio=None)
    for controller, at_first in ((Fixed(0.45), 0.45), (Unpruned(0.45), 0.0)):
        assert controller.held_ratios(dataclasses.replace(state, rounds=())) == (at_first,)
        assert controller.held_ratios(dataclasses.replace(state, rounds=(nothing,))) == (at_first,)
        assert controller.held_ratios(state) == (0.5,)
        assert controller.held_ratios(dataclasses.replace(state, rounds=(one, nothing))) == (0.5,)


def test_by_default_everything_proposed_is_tried_on_everything() -> None:
    controller = Fixed(0.3)
    state = controller.start(0, 10)
    assert not controller.wants_estimates
    assert controller.screen(state, [0.3, 0.1]) == (True, True)
    assert controller.first_part(16) == 16
    assert controller.continues(state, [1.0], [[1.0], [9.0], [8.0]]) == (True, True, True)


def test_nothing_committed_stays_nothing() -> None:
    values = _values()
    values["rounds"][0]["mask_prune_ratio"] = None
    assert state_from_dict(values).rounds[0].mask_prune_ratio is None
