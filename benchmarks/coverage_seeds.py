"""Whether intervals and tests over a few seeds cover new seeds: `coverage` for runs that differ by more than their examples.

K runs of each of two systems answer the same 50 examples. The effect of an example on the difference is the same under every seed,
different under each, or half of both (in variance). In addition, each run's difference has its own noise: 0, 1 or 2 times the
standard error of one run over the examples. The truth is the mean over infinitely many examples and seeds. The same is measured for
the score of one system, where an example's own level, the same under every seed, is most of the variance.

93 to 97 % of intervals must cover the truth and 4 to 6 % of true null hypotheses be rejected. If seeds have no effect, fewer may be
rejected and more covered: an interval for new seeds is never inside the one for these seeds. `python -m benchmarks.coverage_seeds`
prints only these tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmarks.shares import COVERS, REJECTS, TRIALS, TRIALS_AGAIN
from pomona.evaluation.scores import MeanLoss
from pomona.runs.experiments.over_seeds import difference_over_seeds, score_over_seeds
from pomona.runs.experiments.seed_mean import Rows
from pomona.seeding import derive_seed, stream

SEEDS = (3, 5)
EXAMPLES = 50
NOISES = (0.0, 1.0, 2.0)
COMMON = {"alike under every seed": 1.0, "half of it a seed's own": 0.5, "all of it a seed's own": 0.0}
"""What examples do to a run, and the share of its variance that all runs have in common."""

DRAWS = 1000
_CLUSTERS = [str(number) for number in range(EXAMPLES)]

Draw = Callable[[np.random.Generator], list[Rows]]
Happens = Callable[[Draw, np.random.Generator, torch.Generator], bool]


def run() -> bool:
    """Print the tables; whether every share is within its bounds."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    good = _table("true nulls rejected at 0.05", _rejected, (*REJECTS, 0.0, REJECTS[1]), 0.0)
    good &= _table("95 % intervals of a difference that hold the truth", _difference_covered, (*COVERS, COVERS[0], 1.0), 0.0)
    good &= _table("95 % intervals of a score that hold the truth", _score_covered, (*COVERS, COVERS[0], 1.0), 3.0)
    print(f"{TRIALS} trials each, {DRAWS} draws, {time.perf_counter() - started:.0f} s; every share within its bounds: {good}")
    return good


def share(name: str, draw: Draw, happens: Happens, trials: int = TRIALS) -> float:
    """In which share of the trials it happens; the name and the trial's number alone decide what is drawn."""
    random = np.random.default_rng(derive_seed(0, name))
    return sum(happens(draw, random, stream(trial, name)) for trial in range(trials)) / trials


def _table(title: str, happens: Happens, bounds: tuple[float, float, float, float], level: float) -> bool:
    """Args: bounds: where seeds do something, low and high, and where they do nothing; level: an example's own, in deviations."""
    good = True
    print(
        f"{title} (bounds {100 * bounds[0]:.0f} to {100 * bounds[1]:.0f} %; {100 * bounds[2]:.0f} to {100 * bounds[3]:.0f} % at 0)"
    )
    print("  run-to-run noise, in standard errors of one run".ljust(52), *(f"{noise:14g}" for noise in NOISES))
    for seeds in SEEDS:
        for name, common in COMMON.items():
            shown = []
            for noise in NOISES:
                low, high = bounds[:2] if noise else bounds[2:]
                draw = partial(_runs, seeds, common, noise, level)
                found = share(f"{title}/{seeds}/{name}/{noise}", draw, happens)
                shown.append(f"{100 * found:5.2f}")
                if not low <= found <= high:
                    found = share(f"{title}/{seeds}/{name}/{noise}/again", draw, happens, TRIALS_AGAIN)
                    shown[-1] += f" ({100 * found:.2f})"
                good &= low <= found <= high
            print(f"  {f'{seeds} seeds, {name}':<50}", *(f"{one:>14}" for one in shown), flush=True)
    return good


def _runs(seeds: int, common: float, noise: float, level: float, random: np.random.Generator) -> list[Rows]:
    """Runs whose mean over endless examples and seeds is 0; what one example does has mean 0 and variance 1."""
    shared_N = _effects(random, EXAMPLES) * (common**0.5) + level * random.normal(size=EXAMPLES)
    own_KN = _effects(random, (seeds, EXAMPLES)) * ((1.0 - common) ** 0.5)
    moved_K = random.normal(size=seeds) * noise / EXAMPLES**0.5
    scored = np.ones(EXAMPLES, dtype=bool)
    return [Rows((shared_N + own_N + moved)[:, None], scored) for own_N, moved in zip(own_KN, moved_K, strict=True)]


def _effects(random: np.random.Generator, shape: int | tuple[int, int]) -> np.ndarray:
    """Differences of two ROUGE-like scores that are equally good, 40 % of each zeros, with variance 1."""
    one, other = (np.where(random.random(shape) < 0.4, 0.0, random.beta(2, 4, shape)) for _ in range(2))
    return (one - other) / (2 * (0.6 * (2 * 4 / (36 * 7) + 1 / 9) - 0.04)) ** 0.5


def _difference(draw: Draw, random: np.random.Generator, generator: torch.Generator) -> tuple[float, float, float]:
    ours = draw(random)
    theirs = [Rows(np.zeros_like(one.statistics), one.scored) for one in ours]
    found = difference_over_seeds(ours, theirs, MeanLoss(), _CLUSTERS, DRAWS, generator)
    assert found is not None
    return found.low, found.high, found.p_value


def _rejected(draw: Draw, random: np.random.Generator, generator: torch.Generator) -> bool:
    return _difference(draw, random, generator)[2] <= 0.05


def _difference_covered(draw: Draw, random: np.random.Generator, generator: torch.Generator) -> bool:
    low, high, _ = _difference(draw, random, generator)
    return low <= 0.0 <= high


def _score_covered(draw: Draw, random: np.random.Generator, generator: torch.Generator) -> bool:
    runs = [Rows(one.statistics + 50.0, one.scored) for one in draw(random)]
    found = score_over_seeds(runs, MeanLoss(), _CLUSTERS, DRAWS, generator)
    return found.low <= 50.0 <= found.high


if __name__ == "__main__":
    run()
