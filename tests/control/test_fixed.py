from __future__ import annotations

import pytest

from pomona.control import Fixed, controllers
from pomona.errors import InputError
from pomona.ratios import Answer


def test_the_ratio_is_in_force_from_start_to_end() -> None:
    controller = Fixed(0.3)
    state = controller.start(seed=1, total_steps=20)
    assert state.prune_ratio == 0.3
    assert [step for step in range(1, 21) if controller.round_due(state, step)] == []
    assert controller.settle_step(20) == 0
    assert controller.passes == 1
    assert controller.propose(state) == ()
    assert controller.choose(state) == Answer(0.3, 0.3, 0.3, flat=False, curve=())
    assert controller.diagnose(state, []) == []


def test_groups_of_layers_may_be_given_ratios_of_their_own() -> None:
    controller = Fixed((0.2, 0.6))
    assert controller.layer_groups == 2
    state = controller.start(1, 20, (0.25, 0.75))
    assert state.ratios == (0.2, 0.6)
    assert state.prune_ratio == pytest.approx(0.5)
    answer = controller.choose(state)
    assert answer.ratios == (0.2, 0.6)
    assert (answer.low, answer.prune_ratio, answer.high) == (state.prune_ratio,) * 3
    assert Fixed(0.3).layer_groups == 1
    with pytest.raises(ValueError, match="expected 2 shares, got 1"):
        controller.start(1, 20, (1.0,))


@pytest.mark.parametrize(
    ("value", "message"), [((0.2, 1.2), r"must be in \[0, 1\] \(got 1.2\)"), ((0.2,), "a list of two or more")]
)
def test_a_wrong_list_is_an_input_error(value: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        controllers.create("fixed", {"prune_ratio": value})


def test_a_round_is_refused() -> None:
    controller = Fixed(0.3)
    with pytest.raises(ValueError, match="has no rounds, but one was observed at step 4"):
        controller.observe(controller.start(0, 10), 4, [1.0], [])


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_ratio_out_of_range_is_an_input_error(value: float) -> None:
    with pytest.raises(InputError, match=r"prune_ratio: must be in \[0, 1\] \(got"):
        controllers.create("fixed", {"prune_ratio": value})
