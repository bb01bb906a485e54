from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.control import Candidate, ControllerState, Fixed, Grasp, Handling, Round
from pomona.control.grasp import GraspState
from pomona.control.policy import Policy
from pomona.control.rounds import state_from_dict
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
    shares=st.lists(ANY, min_size=1, max_size=3).map(tuple),
    ratios=st.lists(ANY, min_size=1, max_size=3).map(tuple),
    rounds=st.lists(ROUNDS, max_size=3).map(tuple),
)


@given(STATES)
@settings(deadline=None, max_examples=60)
def test_a_state_survives_json_exactly(state: ControllerState) -> None:
    assert state_from_dict(ControllerState, json.loads(json.dumps(dataclasses.asdict(state)))) == state


@dataclasses.dataclass(frozen=True)
class Streak:
    """A part of a state."""

    name: str
    lengths: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class OwnState(ControllerState):
    """With what a controller in one file may add."""

    momentum: float = 0.0
    last: Streak | None = None


@dataclasses.dataclass(frozen=True)
class WithMomentum(Fixed):
    state_type = OwnState


def test_a_controller_s_own_state_needs_no_more_than_its_class() -> None:
    state = OwnState(3, 40, (1.0,), (0.5,), momentum=0.1 + 0.2, last=Streak("up", (1, 2)))
    loaded = WithMomentum(0.5).load_state(json.loads(json.dumps(dataclasses.asdict(state))))
    assert loaded == state
    assert isinstance(loaded, OwnState)
    spoiled = json.loads(json.dumps(dataclasses.asdict(state))) | {"momentum": "0.3"}
    with pytest.raises(InputError, match=r"state\.momentum: Input should be a valid number \(got '0\.3'\)"):
        WithMomentum(0.5).load_state(spoiled)
    with pytest.raises(InputError, match=r"state\.momentum: Unexpected keyword argument"):
        Fixed(0.5).load_state(dataclasses.asdict(state))


def _values() -> dict:
    candidate = Candidate(0.5, (1.0, 2.0), 0.25, 0.125)
    one = Round(0, 10, (1.5, 2.0), (candidate,), 0.4, 0.5, 0.5, 0.41, 0.1, (0.4,))
    state = GraspState(3, 40, (1.0,), (0.5,), (one,), (Policy(0.41, 0.1),))
    return json.loads(json.dumps(dataclasses.asdict(state)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v.update(sed=1), r"state\.sed: Unexpected keyword argument \(got 1\)"),
        (lambda v: v.pop("ratios"), r"state\.ratios: Field required\. Start the run again from the beginning"),
        (lambda v: v["rounds"][0].pop("step"), r"state\.rounds\.0\.step: Field required"),
        (lambda v: v["rounds"][0]["candidates"][0].update(loss=1), r"state\.rounds\.0\.candidates\.0\.loss: Unexpected"),
        (lambda v: v.update(seed=1.5), r"state\.seed: Input should be a valid integer"),
        (lambda v: v.update(ratios=["0.4"]), r"state\.ratios\.0: Input should be a valid number \(got '0\.4'\)"),
        (lambda v: v.update(ratios=[None]), r"state\.ratios\.0: Input should be a valid number \(got None\)"),
        (lambda v: v.update(total_steps=True), r"state\.total_steps: Input should be a valid integer \(got True\)"),
        (lambda v: v.update(rounds={}), r"state\.rounds: Input should be a valid array"),
        (lambda v: v.update(rounds=[7]), r"state\.rounds\.0: Input should be an object \(got 7\)"),
        (lambda v: v["rounds"][0]["losses_before"].append("x"), r"state\.rounds\.0\.losses_before\.2: .* number \(got 'x'\)"),
        (lambda v: v.update(policies=[[0.4]]), r"state\.policies\.0"),
    ],
)
def test_a_spoiled_state_is_one_precise_error(spoil: Callable[[dict], object], message: str) -> None:
    values = _values()
    spoil(values)
    with pytest.raises(InputError, match=message):
        Grasp().load_state(values)


@pytest.mark.parametrize("values", [None, 7, [], "state"])
def test_what_is_no_state_is_an_input_error(values: object) -> None:
    with pytest.raises(InputError, match="state: Input should be an object"):
        Fixed(0.5).load_state(values)


def test_what_was_not_seen_stays_unseen() -> None:
    values = _values()
    values["rounds"][0]["candidates"][0]["losses"] = [None, 2.0]
    candidate = Grasp().load_state(values).rounds[0].candidates[0]
    assert candidate.losses == (None, 2.0)
    assert candidate.seen == 1
    values["rounds"][0]["losses_before"] = [None, 2.0]
    with pytest.raises(InputError, match=r"losses_before\.0: Input should be a valid number \(got None\)"):
        Grasp().load_state(values)


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
    state = dataclasses.replace(Grasp().load_state(_values()), ratios=(0.45,))
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
    assert Grasp().load_state(values).rounds[0].mask_prune_ratio is None
