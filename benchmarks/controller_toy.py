"""Regret of each controller's answer, and coverage of its intervals, on simulated micro dev losses with a known best ratio.

Regret is the mean loss over infinitely many examples at the answer minus the smallest possible one, in thousandths of a nat. Every
column has the same number of probes. A stale mask costs more than a new one at its ratio: 0, 0.0144 and 0.0355 nats were measured.
This affects only methods that compare candidates with the mask in force; the others never probe it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from benchmarks.controller_rivals import ends_and_middle, grid, ladder, lower_bounds, thompson, told_all_but_the_place
from benchmarks.controller_truths import EXAMPLES, FLAT, TRUTHS, MicroDev, Truth
from pomona.control import Bayes, Controller, Grasp
from pomona.ratios import Answer

ROUNDS, CANDIDATES, SEEDS, SEEDS_OF_INTERVALS = 3, 3, 60, 100
STALENESS = (0.0, 0.0144, 0.0355)
MOST_ON_A_CLIFF, MOST_AFTER_EIGHT, LEAST_COVERED, LEAST_FLAT = 6.0, 3.0, 0.90, 0.90
ROUNDING = 0.0025
"""Half a step of the grid on which a posterior's draws are lowest."""

BAYES = Bayes(mode="two_pass", interval_steps=1, candidates=CANDIDATES)
GRASP = Grasp(mode="two_pass", interval_steps=1, candidates=CANDIDATES)
HELD = Grasp(mode="two_pass", interval_steps=1, candidates=CANDIDATES, published=("held_reference",))
PUBLISHED = Grasp(mode="two_pass", interval_steps=1, candidates=CANDIDATES, paper=True)

Way = Callable[[MicroDev, int, int, int], float]


def searched(controller: Controller, examples: MicroDev, rounds: int, seed: int, staleness: float = 0.0) -> Answer:
    """The answer after some rounds, in the order that `control/base.py` asks for.

    Args:
        controller: one ratio for all layers, a round due after every step.
        examples: whose losses are simulated.
        rounds: how many.
        seed: of the controller.
        staleness: what a mask of an earlier round costs above a fresh one at its ratio, nats.
    """
    state = controller.start(seed, rounds)
    for step in range(1, rounds + 1):
        reference, proposed = controller.reference(state), controller.propose(state)
        before_NP = examples.probe([(reference or controller.held_ratios(state))[0], *proposed])
        before = (before_NP[:, 0] + (staleness if reference is None else 0.0)).tolist()
        rows: list[list[float | None]] = [[*row] for row in before_NP[:, 1:].T.tolist()]
        n = controller.first_part(EXAMPLES)
        if n < EXAMPLES:
            goes_on = controller.continues(state, before[:n], before_NP[:n, 1:].T.tolist())
            rows = [row if on else [*row[:n], *[None] * (EXAMPLES - n)] for row, on in zip(rows, goes_on, strict=True)]
        state = controller.observe(state, step, before, rows)
    return controller.choose(state)


def _by(controller: Controller) -> Way:
    return lambda examples, rounds, candidates, seed: searched(controller, examples, rounds, seed).prune_ratio


COLUMNS: Mapping[str, Way] = {
    "bayes": _by(BAYES),
    "grasp": _by(GRASP),
    "published": _by(PUBLISHED),
    "grid": grid,
    "ends, middle": ends_and_middle,
    "ladder": ladder,
    "Thompson": thompson,
    "UCB": lower_bounds,
}
"""`grasp` answers from the posterior of `bayes`, and so does `ladder`: what they lack is the choice of probes."""


def run(truths: Sequence[Truth] = TRUTHS) -> bool:
    """Print the tables; whether the default controller meets its bounds on these truths."""
    met = _regrets(truths)
    met &= _more_rounds(truths)
    met &= _intervals(truths)
    return met


def _regrets(truths: Sequence[Truth]) -> bool:
    print(f"regret in thousandths of a nat, {ROUNDS} rounds of {CANDIDATES}, {SEEDS} seeds, no staleness; standard error")
    print(f"  {'':30}" + "".join(f"{name:>15}" for name in COLUMNS))
    met = True
    for truth in truths:
        found = {name: [_regret(way, truth, ROUNDS, seed) for seed in range(SEEDS)] for name, way in COLUMNS.items()}
        print(f"  {truth.name:30}" + "".join(f"{_with_error(one):>15}" for one in found.values()), flush=True)
        for name, one in found.items():
            behind = [ours - theirs for ours, theirs in zip(found["bayes"], one, strict=True)]
            if fmean(behind) > 2 * _error(behind):
                print(f"    bayes is worse than {name} by {_with_error(behind)}: more than two standard errors")
                met = False
    return met


def _more_rounds(truths: Sequence[Truth]) -> bool:
    """Cliffs: the bounds, and what one costs who is told all but the place."""
    met = True
    print(f"cliffs: regret of bayes after {ROUNDS} and 8 rounds, bounds {MOST_ON_A_CLIFF:g} and {MOST_AFTER_EIGHT:g}")
    for truth in truths:
        if not truth.name.startswith("cliff"):
            continue
        for rounds, bound in ((ROUNDS, MOST_ON_A_CLIFF), (8, MOST_AFTER_EIGHT)):
            ours = [_regret(COLUMNS["bayes"], truth, rounds, seed) for seed in range(SEEDS)]

            def told(examples: MicroDev, rounds: int, candidates: int, seed: int, truth: Truth = truth) -> float:
                return told_all_but_the_place(examples, truth.noise, truth.growth, truth.lasting, rounds, seed)

            least = [_regret(told, truth, rounds, seed) for seed in range(SEEDS)]
            within = fmean(ours) <= bound
            met &= within
            print(
                f"  {truth.name:30} {rounds} rounds: {_with_error(ours)} {'' if within else '(missed)'}; "
                f"told all but the place {_with_error(least)}",
                flush=True,
            )
    return met


class _Kept(NamedTuple):
    """Of some searches: shares of intervals that held the best ratio, and of curves called flat; mean regret."""

    held: float
    flat: float
    regret: float


def _intervals(truths: Sequence[Truth]) -> bool:
    print(f"95 % intervals that cover the best ratio, curves called flat, regret; {SEEDS_OF_INTERVALS} seeds, by staleness in nats")
    met = True
    searches: list[tuple[str, Controller, float | None]] = [("bayes", BAYES, None), ("grasp", GRASP, None)]
    searches += [("grasp, held mask compared", HELD, one) for one in STALENESS]
    for name, controller, staleness in searches:
        for truth in (*truths, FLAT):
            kept = _kept(controller, truth, staleness or 0.0)
            print(
                f"  {name:26} {'any' if staleness is None else f'{staleness:g}':<7} {truth.name:30} "
                + (f"held {100 * kept.held:5.1f} %, " if truth is not FLAT else " " * 14)
                + f"flat {100 * kept.flat:5.1f} %, regret {kept.regret:.1f}",
                flush=True,
            )
            if controller is BAYES:
                met &= kept.flat >= LEAST_FLAT if truth is FLAT else kept.held >= LEAST_COVERED
    return met


def _kept(controller: Controller, truth: Truth, staleness: float) -> _Kept:
    held, flat, regrets = [], [], []
    for seed in range(SEEDS_OF_INTERVALS):
        examples = MicroDev(truth, 1000 + seed)
        answer = searched(controller, examples, ROUNDS, seed, staleness)
        held.append(answer.low - ROUNDING <= examples.best <= answer.high + ROUNDING)
        flat.append(answer.flat)
        regrets.append(examples.regret(answer.prune_ratio))
    return _Kept(fmean(held), fmean(flat), fmean(regrets))


def _regret(way: Way, truth: Truth, rounds: int, seed: int) -> float:
    examples = MicroDev(truth, seed)
    return examples.regret(way(examples, rounds, CANDIDATES, seed))


def _error(values: Sequence[float]) -> float:
    return stdev(values) / len(values) ** 0.5


def _with_error(values: Sequence[float]) -> str:
    return f"{fmean(values):.1f} ({_error(values):.1f})"


if __name__ == "__main__":
    run()
