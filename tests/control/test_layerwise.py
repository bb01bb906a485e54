"""The layerwise controller: K policies with one reward, and an answer for each group of layers."""

from __future__ import annotations

import dataclasses
import math
from statistics import fmean

import numpy as np
import pytest
from tests.control.rule import climbed

from pomona.control import Grasp, Layerwise, controllers
from pomona.control.grasp import GraspState
from pomona.control.policy import antithetic
from pomona.errors import InputError
from pomona.ratios import Answer
from pomona.seeding import stream

SHARES = (0.5, 0.3, 0.2)
TOY = Layerwise(mode="two_pass", interval_steps=1, race_level=0.0)


def observed(controller: Layerwise, rewards: list[float], examples: int = 6) -> tuple[GraspState, GraspState]:
    """A state, and what it is after a round with these rewards."""
    state = controller.start(0, 10, SHARES)
    return state, controller.observe(state, 1, [1.0] * examples, [[1.0 - reward] * examples for reward in rewards])


def test_a_candidate_is_a_ratio_for_each_group_and_its_mean_by_shares() -> None:
    state = TOY.start(3, 10, SHARES)
    candidates = TOY.propose_by_group(state)
    assert [len(one) for one in candidates] == [3, 3, 3]
    assert TOY.propose(state) == pytest.approx([sum(s * p for s, p in zip(SHARES, one, strict=True)) for one in candidates])
    assert len(set(zip(*candidates, strict=True))) == 3, "no group draws what another does"
    assert all(TOY.prune_ratio_min <= p <= TOY.prune_ratio_max for one in candidates for p in one)
    wide = dataclasses.replace(TOY, deviation_start=0.1)
    first, second, _ = wide.propose_by_group(wide.start(3, 10, SHARES))  # an antithetic pair, within the range
    assert [a + b for a, b in zip(first, second, strict=True)] == pytest.approx([0.8] * 3, abs=2e-4)


def test_each_group_s_policy_moves_as_grasp_s_would_under_the_same_rewards() -> None:
    rewards = [0.3, -0.1, 0.05]
    state, after = observed(TOY, rewards)
    draws = (antithetic(3, stream(0, "round", 0, "samples", k)) for k in range(3))
    samples = [[0.4 + one.deviation * z for z in drawn] for one, drawn in zip(state.policies, draws, strict=True)]
    for k, (one, moved) in enumerate(zip(state.policies, after.policies, strict=True)):
        expected = climbed(TOY, one, samples[k], rewards, state.ratios[k])
        assert moved == pytest.approx(expected, abs=1e-12)
    assert after.rounds[0].mean == pytest.approx(math.fsum(s * one.mean for s, one in zip(SHARES, after.policies, strict=True)))
    assert len({one.mean for one in after.policies}) == 3


def test_a_commit_moves_every_group_towards_the_best_candidate_by_no_more_than_the_bound() -> None:
    state, after = observed(TOY, [-0.3, -0.1, 0.5])
    best = TOY.propose_by_group(state)[2]
    assert after.ratios == pytest.approx([min(max(p, 0.3), 0.5) for p in best])
    (seen,) = after.rounds
    assert seen.by_group == seen.mask_ratios == after.ratios
    assert seen.prune_ratio_after == seen.mask_prune_ratio == after.prune_ratio
    assert after.prune_ratio == pytest.approx(math.fsum(s * p for s, p in zip(SHARES, after.ratios, strict=True)))
    assert [one.by_group for one in seen.candidates] == list(TOY.propose_by_group(state))


def test_without_a_gain_the_ratios_stay() -> None:
    state, after = observed(TOY, [-0.3, -0.1, -0.5])
    assert after.ratios == state.ratios == (0.4, 0.4, 0.4)
    assert after.rounds[0].mask_ratios is None
    assert after.rounds[0].by_group == state.ratios


def toy(controller: Grasp, seed: int, optima: tuple[float, ...], rounds: int) -> tuple[float, Answer]:
    """Mean error of the groups' ratios on a surface with an optimum for each, and the answer."""
    rng = np.random.default_rng([seed, 7])
    state = controller.start(seed, rounds, SHARES if isinstance(controller, Layerwise) else (1.0,))
    for step in range(1, rounds + 1):
        level_N = rng.normal(0, 0.5, 16)

        def losses(ratios: tuple[float, ...], level_N: np.ndarray = level_N) -> list[float]:
            bend = 1.5 * np.mean((np.broadcast_to(ratios, 3) - np.array(optima)) ** 2)
            return (2 + bend + math.sqrt(0.9) * level_N + math.sqrt(0.1) * rng.normal(0, 0.5, 16)).tolist()

        before = losses(state.ratios)
        state = controller.observe(state, step, before, [losses(one) for one in controller.propose_by_group(state)])
    answer = controller.choose(state)
    return float(np.abs(np.broadcast_to(answer.ratios, 3) - np.array(optima)).mean()), answer


def test_groups_with_different_optima_are_distinguished() -> None:
    optima = (0.25, 0.45, 0.65)
    one_for_all = fmean(toy(Grasp(mode="two_pass", interval_steps=1), seed, optima, 20)[0] for seed in range(10))
    found = [toy(TOY, seed, optima, 20) for seed in range(10)]
    assert one_for_all > 0.12
    assert fmean(error for error, _ in found) < 0.05
    for _, answer in found:
        assert len(answer.by_group) == 3
        assert all(one.low <= one.prune_ratio <= one.high for one in answer.by_group)
        assert answer.prune_ratio == pytest.approx(math.fsum(s * p for s, p in zip(SHARES, answer.ratios, strict=True)))
        assert all(point.reward < 0 for point in answer.curve)


def test_without_noise_the_answer_is_exact_whatever_was_committed_on_the_way() -> None:
    optima, state = (0.2, 0.65, 0.7), TOY.start(1, 10, SHARES)
    for step in range(1, 9):
        trials = [state.ratios, *TOY.propose_by_group(state)]
        before, *losses = ([step + sum((p - o) ** 2 for p, o in zip(one, optima, strict=True))] * 6 for one in trials)
        state = TOY.observe(state, step, before, losses)
    assert len({one.by_group for one in state.rounds} | {(0.4, 0.4, 0.4)}) > 2
    assert TOY.choose(state).ratios == pytest.approx(optima, abs=1e-4)


def test_a_single_pass_whose_surface_is_flat_keeps_each_group_near_its_ratio_in_force() -> None:
    single = dataclasses.replace(TOY, mode="single_pass")
    rng, state = np.random.default_rng(0), TOY.start(1, 10, SHARES)
    for step in range(1, 4):
        before, *losses = ([float(loss) for loss in rng.normal(2, 0.5, 16)] for _ in range(4))
        state = TOY.observe(state, step, before, losses)
    two, one = TOY.choose(state), single.choose(state)
    assert two.flat
    distances = [abs(p - ratio) for p, ratio in zip(two.ratios, state.ratios, strict=True)]
    assert max(distances) > 0.1
    for found, free, ratio in zip(one.by_group, two.by_group, state.ratios, strict=True):
        assert found.prune_ratio == pytest.approx(min(max(free.prune_ratio, ratio - 0.1), ratio + 0.1), abs=1e-4)
        assert found.low <= found.prune_ratio <= found.high


def test_before_the_first_round_the_answer_is_the_ratio_in_force() -> None:
    answer = TOY.choose(TOY.start(0, 10, SHARES))
    assert answer.ratios == (0.4, 0.4, 0.4)
    assert [(one.low, one.high) for one in answer.by_group] == [(0.1, 0.8)] * 3
    assert answer.flat
    assert answer.curve == ()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"groups": 1}, r"groups: must be at least 2; use grasp for one ratio for all layers \(got 1\)"),
        ({"paper": True}, "paper: must be false"),
        ({"proposals": 6}, "proposals: must be null"),
        ({"candidates": 1}, "candidates: must be at least 2"),
    ],
)
def test_what_it_cannot_do_is_an_input_error(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        controllers.create("layerwise", parameters)


def test_shares_must_fit_the_groups() -> None:
    with pytest.raises(ValueError, match="expected 3 shares, got 1"):
        TOY.start(0, 10, (1.0,))
