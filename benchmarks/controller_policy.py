"""How near the ratio of `grasp` comes to the optimum, and at how many forward passes, on simulated micro dev losses: the benefit of
racing, screening and the update. Also `layerwise` with three groups of layers, with one optimum or separate ones.

The loss of example i at ratio p is `2 + 1.5 (p - p_opt)^2 + sqrt(0.9) u_i + sqrt(0.1) v_ip`, u and v normal with deviation 0.5, u
drawn once per round and v once per probe, 16 examples, p_opt uniform in [0.2, 0.7]; 40 rounds of 3 candidates, 200 seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from statistics import fmean
from unittest.mock import patch

import numpy as np

from pomona.control import Grasp, Layerwise
from pomona.control.grasp import GraspState
from pomona.control.policy import centred_advantages

SEEDS, ROUNDS, EXAMPLES = 200, 40, 16
WITHIN, LEAST_WITHIN, MOST_ERROR = 0.05, 190, 0.02
ESTIMATE_CORRELATION = 0.5
BEND, GROUPS = 1.5, 3

PLAIN = Grasp(mode="two_pass", interval_steps=1, race_level=0.0)
DEFAULT = replace(PLAIN, race_level=Grasp().race_level)

# What is run: a name, the controller, whether its advantages are only centred, as published.
VARIANTS: tuple[tuple[str, Grasp, bool], ...] = (
    (f"defaults (racing at {DEFAULT.race_level})", DEFAULT, False),
    ("no racing", PLAIN, False),
    *((f"racing at {level}", replace(PLAIN, race_level=level), False) for level in (0.1, 0.2, 0.9)),
    ("screening, 3 of 6", replace(PLAIN, proposals=6), False),
    ("all 6 tried", replace(PLAIN, candidates=6), False),
    ("screening and racing", replace(DEFAULT, proposals=6), False),
    ("as narrow a policy as published", replace(DEFAULT, deviation_start=0.7 / 6), False),
    ("centred advantages", PLAIN, True),
    ("published rule", Grasp(mode="two_pass", interval_steps=1, paper=True), False),
)


def run() -> bool:
    """Print, for each variant and each way to answer, how near it comes; whether the defaults are near enough."""
    print(f"{SEEDS} seeds, {ROUNDS} rounds; seeds within {WITHIN} of the optimum, and mean error, of three ways to answer")
    print(f"  {'':32}{'posterior':>15}{'best reward':>18}{'policy mean':>15}{'passes':>9}")
    met = True
    for name, controller, centred in VARIANTS:
        with only_centred() if centred else nullcontext():
            found = [search(controller, seed) for seed in range(SEEDS)]
        curves, luckiest, means = ([error[way] for error, _ in found] for way in range(3))
        columns = "".join(f"{sum(e <= WITHIN for e in one):>9} {fmean(one):.3f}" for one in (curves, luckiest, means))
        print(f"  {name:32}{columns}{fmean(passes for _, passes in found):>9.0f}", flush=True)
        if controller is DEFAULT:
            met = sum(e <= WITHIN for e in curves) >= LEAST_WITHIN and fmean(curves) <= MOST_ERROR
    print(f"bound for the defaults: at least {LEAST_WITHIN} seeds, mean error at most {MOST_ERROR}")
    groups_of_layers()
    bonus_and_anchor()
    return met


def groups_of_layers() -> None:
    """Print the mean loss above the optimum's, of one ratio for all layers and of one for each of three groups."""
    print(f"{GROUPS} groups of layers, {SEEDS} seeds: mean loss above the smallest possible, in nats")
    for what, alike in (("groups with optima of their own", False), ("groups with one optimum", True)):
        for rounds in (3, 8, 40):
            found = (
                f"{name} {fmean(excess(controller, seed, rounds, alike=alike) for seed in range(SEEDS)):.4f}"
                for name, controller in (("grasp", DEFAULT), ("layerwise", Layerwise(mode="two_pass", interval_steps=1)))
            )
            print(f"  {what}, {rounds} rounds: {', '.join(found)}", flush=True)


def bonus_and_anchor() -> None:
    """Print where entropy and anchor alone move the policy: rounds of equal rewards, its mean 0.2 above the ratio in force."""
    rounds = 14
    print(
        f"{rounds} rounds of equal rewards: how far the deviation grows, and how far the mean, 0.2 off, goes to the ratio in force"
    )
    for name, weights in (("defaults", {}), ("entropy and anchor of 1", {"entropy": 1.0, "anchor": 1.0})):
        for way, controller in (("mended", replace(PLAIN, **weights)), ("published", replace(PLAIN, paper=True, **weights))):
            state = controller.start(0, rounds)
            first = state.policies[0]._replace(mean=0.6)
            state = replace(state, policies=(first,))
            for step in range(1, rounds + 1):
                losses = [2.0] * EXAMPLES  # a loss a little above the one before, so that nothing is committed
                state = controller.observe(state, step, [1.9] * EXAMPLES, [losses] * controller.candidates)
            grown, pulled = state.policies[0].deviation - first.deviation, first.mean - state.policies[0].mean
            print(f"  {name}, {way}: deviation {first.deviation:.3f} + {grown:.4f}, mean {pulled:.4f} of 0.2", flush=True)


def excess(controller: Grasp, seed: int, rounds: int, *, alike: bool) -> float:
    """The loss at the answer above that at the optimum: the mean of the groups' parabolas, with the noise of the toy above."""
    rng = np.random.default_rng([seed, 2])
    best_K = np.full(GROUPS, rng.uniform(0.2, 0.7)) if alike else rng.uniform(0.2, 0.7, GROUPS)

    def cost(ratios: Sequence[float]) -> float:
        return BEND * float(np.mean((np.broadcast_to(ratios, GROUPS) - best_K) ** 2))

    state = controller.start(seed, rounds, (1 / controller.layer_groups,) * controller.layer_groups)
    for step in range(1, rounds + 1):
        u_N = rng.normal(0, 0.5, EXAMPLES)
        trials = [state.ratios, *controller.propose_by_group(state)]
        before, *losses = ((2 + cost(one) + math.sqrt(0.9) * u_N + _own_noise(rng)).tolist() for one in trials)
        state = controller.observe(state, step, before, losses)
    return cost(controller.choose(state).ratios)


def _own_noise(rng: np.random.Generator) -> np.ndarray:
    return math.sqrt(0.1) * rng.normal(0, 0.5, EXAMPLES)


@contextmanager
def only_centred() -> Iterator[None]:
    """Advantages that are not divided by their deviation."""
    with patch("pomona.control.policy.normalised_advantages", centred_advantages):
        yield


def search(controller: Grasp, seed: int) -> tuple[tuple[float, float, float], int]:
    """Errors of the three answers after one simulated run, and its forward passes over one example."""
    best = np.random.default_rng([seed, 0]).uniform(0.2, 0.7)
    state = simulated(controller, seed, best)
    rounds = state.rounds
    history = [candidate for one in rounds for candidate in one.candidates]
    answers = (
        replace(controller, paper=False).choose(state).prune_ratio,
        max(history, key=lambda candidate: candidate.reward).prune_ratio,
        state.policies[0].mean,
    )
    passes = EXAMPLES * len(rounds) + sum(candidate.seen for candidate in history)
    first, second, third = (abs(answer - best) for answer in answers)
    return (first, second, third), passes


def simulated(
    controller: Grasp, seed: int, best: float, bend: float = BEND, *, rounds: int = ROUNDS, noise: float = 1.0
) -> GraspState:
    """A run of the toy, in the order that `control/base.py` asks for."""
    rng = np.random.default_rng([seed, 1])
    state = controller.start(seed, rounds)
    for step in range(1, rounds + 1):
        u_N = rng.normal(0, 0.5, EXAMPLES)

        def probe(p: float, u_N: np.ndarray = u_N) -> list[float]:
            return (2 + bend * (p - best) ** 2 + math.sqrt(0.9) * u_N + noise * _own_noise(rng)).tolist()

        before = probe((controller.reference(state) or controller.held_ratios(state))[0])
        proposed = controller.propose(state)
        rows: list[list[float | None] | None] = [None] * len(proposed)
        tried = list(range(len(proposed)))
        if controller.wants_estimates:
            screened = controller.screen(state, _estimates(proposed, best, bend, rng))
            tried = [g for g, kept in enumerate(screened) if kept]
        losses = {g: probe(proposed[g]) for g in tried}
        n = controller.first_part(EXAMPLES)
        goes_on = controller.continues(state, before[:n], [losses[g][:n] for g in tried]) if n < EXAMPLES else (True,) * len(tried)
        for g, on in zip(tried, goes_on, strict=True):
            rows[g] = [*losses[g]] if on else [*losses[g][:n], *[None] * (EXAMPLES - n)]
        state = controller.observe(state, step, before, rows)
    return state


def _estimates(prune_ratios: tuple[float, ...], best: float, bend: float, rng: np.random.Generator) -> list[float]:
    """The true changes of the loss, with noise that leaves them a correlation of `ESTIMATE_CORRELATION` within the round."""
    change_G = bend * (np.array(prune_ratios) - best) ** 2
    noise = change_G.std() * math.sqrt(1 / ESTIMATE_CORRELATION**2 - 1)
    return (change_G + rng.normal(0, noise, len(change_G))).tolist()


if __name__ == "__main__":
    run()
