"""The published code's behaviours: each switch changes what it says, and all of them are `paper`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch
from tests.control.rule import climbed

from pomona.control import Grasp, Handling, controllers
from pomona.control.grasp import GraspState
from pomona.control.policy import Policy
from pomona.control.published import PUBLISHED, Behaviour
from pomona.errors import InputError
from pomona.seeding import stream

PLAIN = Grasp(mode="two_pass", interval_steps=1)
PAPER = dataclasses.replace(PLAIN, paper=True)
BEFORE = [2.0] * 8


def switched(*names: Behaviour, **settings: Any) -> Grasp:
    return dataclasses.replace(PLAIN, published=names, **settings)


def rewarded(controller: Grasp, state: GraspState, rewards: Sequence[float]) -> GraspState:
    return controller.observe(state, 1, BEFORE, [[2.0 - reward] * 8 for reward in rewards])


def noisy(controller: Grasp) -> GraspState:
    """Six rounds of noise, which commit now and then."""
    generator, state = torch.Generator().manual_seed(5), controller.start(3, 6)
    for step in range(1, 7):
        rows = (2 + 0.1 * torch.randn(4, 8, generator=generator, dtype=torch.float64)).tolist()
        state = controller.observe(state, step, rows[0], rows[1:])
    return state


def test_every_behaviour_has_one_sentence() -> None:
    assert tuple(PUBLISHED) == get_args(Behaviour)
    for sentence in PUBLISHED.values():
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert "\n" not in sentence


def test_paper_is_all_of_them() -> None:
    everything = switched(*PUBLISHED)
    assert noisy(everything) == noisy(PAPER)
    assert everything.choose(noisy(everything)) == PAPER.choose(noisy(PAPER))
    assert everything.handling == PAPER.handling
    for field in dataclasses.fields(Handling):
        assert getattr(PAPER.handling, field.name) != getattr(PLAIN.handling, field.name), field.name
    assert noisy(PLAIN) != noisy(PAPER)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("reinforced",),
            r"published: no such published behaviour \(got 'reinforced'\)\. Did you mean 'reinforce'\? Known: adam_restart",
        ),
        (("variance_floor",), r"published: changes nothing without reinforce \(got 'variance_floor'\)\. Add reinforce"),
    ],
)
def test_a_wrong_name_is_one_precise_error(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        controllers.create("grasp", {"published": names})


def test_layers_have_no_published_behaviour() -> None:
    with pytest.raises(InputError, match="published: must be empty: the published code has one ratio for all layers"):
        controllers.create("layerwise", {"published": ("any_gain",)})


def test_reinforce_moves_the_policy_by_the_plain_update_alone() -> None:
    controller = switched("reinforce")
    state = controller.start(3, 10)
    state = dataclasses.replace(state, policies=(state.policies[0]._replace(mean=0.5),))
    rho, rewards = controller.propose(state), [0.02, -0.01, 0.05]
    assert rho == PLAIN.propose(state)
    after = rewarded(controller, state, rewards)
    s, advantages = state.policies[0].deviation, [reward - 0.02 for reward in rewards]
    slopes = [
        sum(a * one(x) for a, x in zip(advantages, rho, strict=True)) / 3
        for one in (lambda x: (x - 0.5) / s**2, lambda x: (x - 0.5) ** 2 / s**2 - 1)
    ]
    assert after.policies[0].mean == pytest.approx(0.5 + 0.05 * (slopes[0] - 0.05 * (0.5 - 0.4)), abs=1e-12)
    assert after.policies[0].deviation == pytest.approx(s + 0.05 * slopes[1] + 0.01, abs=1e-12)
    plain = rewarded(PLAIN, state, rewards)
    expected = climbed(PLAIN, Policy(0.5, s), [0.5 + s * z for z in _drawn(state, antithetic=True)], rewards, 0.4)
    assert plain.policies[0] == pytest.approx(expected)
    assert after.rounds[0].mask_prune_ratio == plain.rounds[0].mask_prune_ratio


def _drawn(state: GraspState, *, antithetic: bool) -> list[float]:
    generator = stream(state.seed, "round", 0, "samples")
    drawn = torch.randn(2 if antithetic else 3, generator=generator, dtype=torch.float64).tolist()
    return [drawn[0], -drawn[0], drawn[1]] if antithetic else drawn


@pytest.mark.parametrize("names", [("reinforce",), ("reinforce", "variance_floor")])
def test_the_floor_of_the_variance_bounds_the_update_of_a_narrow_policy(names: tuple[Behaviour, ...]) -> None:
    controller = switched(*names, deviation_start=0.002)
    state = controller.start(3, 10)
    rho, rewards = controller.propose(state), [0.0002, -0.0001, 0.0005]
    variance = 1e-4 if "variance_floor" in names else 0.002**2
    slope = sum((reward - 0.0002) * (x - 0.4) / variance for reward, x in zip(rewards, rho, strict=True)) / 3
    spread = sum((reward - 0.0002) * ((x - 0.4) ** 2 / variance - 1) for reward, x in zip(rewards, rho, strict=True)) / 3
    after = rewarded(controller, state, rewards)
    assert after.policies[0].mean == pytest.approx(0.4 + 0.05 * slope, abs=1e-12)
    assert after.policies[0].deviation == pytest.approx(max(1e-3, 0.002 + 0.05 * spread + 0.01), abs=1e-12)


def test_the_first_deviation() -> None:
    assert switched("narrow_start").start(0, 1).policies[0].deviation == pytest.approx(0.7 / 6)
    assert switched("narrow_start", deviation_start=0.2).start(0, 1).policies[0].deviation == 0.2
    with pytest.raises(InputError, match="deviation_start: must be in"):
        switched("narrow_start", deviation_start=0.01)


def test_independent_draws_are_neither_paired_nor_rounded() -> None:
    controller = switched("independent_draws")
    state = controller.start(3, 10)
    found = [0.4 + state.policies[0].deviation * z for z in _drawn(state, antithetic=False)]
    assert controller.propose(state) == tuple(min(max(x, 0.1), 0.8) for x in found)
    low = min(range(3), key=lambda g: abs(found[g] - 0.4))
    after = rewarded(controller, state, [0.5 if g == low else -0.5 for g in range(3)])
    assert after.prune_ratio == controller.propose(state)[low] != round(after.prune_ratio, 4)


def test_all_probed_neither_screens_nor_stops() -> None:
    controller = switched("all_probed", proposals=6)
    state = controller.start(3, 10)
    assert (len(controller.propose(state)), controller.wants_estimates, controller.first_part(16)) == (3, False, 16)
    assert controller.continues(state, [1.0] * 8, [[9.0] * 8, [1.0] * 8, [1.0] * 8]) == (True, True, True)
    assert PLAIN.continues(state, [1.0] * 8, [[9.0] * 8, [1.0] * 8, [1.0] * 8]) == (False, True, True)


def test_what_candidates_are_compared_with() -> None:
    """Without a mask before the first commit, a fresh mask of ratio 0; with the mask in force, that one."""
    cases: list[tuple[list[Behaviour], tuple[float, ...] | None]] = [
        ([], (0.4,)),
        (["starts_unpruned"], (0.0,)),
        (["held_reference"], None),
    ]
    for names, first in cases:
        controller = switched(*names)
        assert controller.reference(controller.start(0, 10)) == first
        after = rewarded(controller, controller.start(0, 10), [-1.0, -2.0, -3.0])
        assert after.rounds[0].mask_prune_ratio is None
        assert after.rounds[0].reference == (first or (0.4,))
        assert controller.reference(after) == first


def test_any_gain_is_committed() -> None:
    gains = [0.3, -0.2] * 4  # mean 0.05, which no test passes
    rows = [[2.0 - gain for gain in gains], [2.5] * 8, [2.5] * 8]
    for controller, commits in ((PLAIN, False), (switched("any_gain"), True)):
        after = controller.observe(controller.start(0, 10), 1, BEFORE, rows)
        assert (after.rounds[0].mask_prune_ratio is not None) is commits


def test_the_candidate_s_own_mask_is_committed() -> None:
    controller = switched("candidate_mask", deviation_start=0.3)
    state = controller.start(3, 10)
    rho = controller.propose(state)
    far = max(range(3), key=lambda g: abs(rho[g] - 0.4))
    after = rewarded(controller, state, [0.5 if g == far else -0.5 for g in range(3)])
    assert after.rounds[0].mask_prune_ratio == rho[far]
    assert after.prune_ratio == pytest.approx(0.4 + math.copysign(0.1, rho[far] - 0.4))
    assert controller.reference(after) == (rho[far],)  # like with like: the mask in force is of that ratio


def test_the_best_reward_is_the_answer() -> None:
    state = noisy(PLAIN)
    lucky = max((one for seen in state.rounds for one in seen.candidates), key=lambda one: one.reward)
    assert switched("best_reward").choose(state).prune_ratio == lucky.prune_ratio != PLAIN.choose(state).prune_ratio


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("importance_once", "refreshes_importance"),
        ("starts_unpruned", "starts_unpruned"),
        ("no_feedback", "trains_pruned"),
        ("moments_at_commits", "clears_moments_at_commits_only"),
        ("adam_restart", "restarts_adam"),
        ("masks_by_adapter", "masks_by_adapter"),
        ("ties_pruned", "prunes_ties"),
    ],
)
def test_what_the_surgery_is_asked_for(name: Behaviour, flag: str) -> None:
    others: Any = [one for one in PUBLISHED if one not in (name, "variance_floor")]
    plain, one, rest = (controller.handling for controller in (PLAIN, switched(name), switched(*others)))
    assert one == dataclasses.replace(plain, **{flag: not getattr(plain, flag)})
    assert getattr(rest, flag) is getattr(plain, flag)


def test_a_mask_before_the_first_commit_is_no_growth_that_a_search_asked_for() -> None:
    """From nothing a commit asks for all that it prunes, from 0.4 for a tenth of all entries: only then does it thrash."""
    for controller, thrashes in ((switched("starts_unpruned"), False), (PLAIN, True)):
        state = rewarded(controller, controller.start(0, 10), [0.5, -0.5, -0.5])
        assert abs(state.prune_ratio - 0.4) == pytest.approx(0.1)
        assert any("thrashes" in one for one in controller.diagnose(state, [state.prune_ratio])) is thrashes
