"""Other ways to find a prune ratio with as many probes: the columns of `controller_toy` that are not controllers of Pomona.

Each takes a micro dev set, a number of rounds, of candidates per round, and a seed, and returns a ratio. A round has one probe more
than candidates: at the ratio in force, or wherever the method uses it.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.controller_truths import HIGH, LOW, MicroDev
from pomona.control.belief import Belief, believe
from pomona.control.within_rounds import compared_within_rounds, fit
from pomona.seeding import stream

_GRID = np.linspace(LOW, HIGH, 141)
_LENGTH, _SIZES = 0.2, (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def grid(examples: MicroDev, rounds: int, candidates: int, seed: int) -> float:
    """Evenly spaced ratios, one probe each on the same examples; the lowest mean."""
    ratios = np.linspace(LOW, HIGH, rounds * (candidates + 1))
    return float(ratios[examples.probe(ratios.tolist()).mean(axis=0).argmin()])


def ends_and_middle(examples: MicroDev, rounds: int, candidates: int, seed: int) -> float:
    """The lowest, middle and highest ratio and 0.4 each round; the mean of the minima of bootstrapped parabolas."""
    ratios = (0.4, LOW, (LOW + HIGH) / 2, HIGH)
    losses = [examples.probe(ratios).T.tolist() for _ in range(rounds)]
    u = (2 * np.array(ratios) - LOW - HIGH) / (HIGH - LOW)
    compared = compared_within_rounds(losses, [np.stack([u, u * u], axis=1)] * rounds)
    found = compared and fit(compared.y_NM, compared.X_NMD, stream(seed, "parabola"))
    assert found
    at = np.linspace(-1, 1, 401)
    lowest = at[(found.drawn_QD @ np.stack([at, at * at])).argmin(axis=1)]
    return float((LOW + HIGH) / 2 + lowest.mean() * (HIGH - LOW) / 2)


def ladder(examples: MicroDev, rounds: int, candidates: int, seed: int) -> float:
    """Ratio 0 and evenly spread ratios, each round's between those of the last; Pomona's posterior. The design alone differs."""
    tried, losses = [], []
    for index in range(rounds):
        spread = np.linspace(LOW, HIGH, rounds * candidates)[rounds - 1 - index :: rounds]
        tried.append((0.0, *spread.tolist()))
        losses.append(examples.probe(tried[-1]).T.tolist())
    belief = believe(tried, losses, LOW, HIGH, seed)
    assert isinstance(belief, Belief)
    return belief.best()


def thompson(examples: MicroDev, rounds: int, candidates: int, seed: int) -> float:
    """A Gaussian process over the mean losses; each round the lowest points of as many draws; the lowest mean."""
    return _process(examples, rounds, candidates, seed, bound=None)


def lower_bounds(examples: MicroDev, rounds: int, candidates: int, seed: int) -> float:
    """The same with the lowest lower confidence bound (UCB), the batch filled by believing the mean."""
    return _process(examples, rounds, candidates, seed, bound=2.0)


def _process(examples: MicroDev, rounds: int, candidates: int, seed: int, bound: float | None) -> float:
    random = np.random.default_rng([seed, 5])
    ratios = np.linspace(LOW, HIGH, candidates + 1)
    p, mean, error, level = np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((0, 0))
    for index in range(rounds):
        seen = examples.probe(ratios.tolist())
        gaps = seen - seen.mean(axis=1, keepdims=True)
        deviation = math.sqrt(float(gaps.var(axis=0, ddof=1).mean()) / len(seen))
        p, mean = np.append(p, ratios), np.append(mean, gaps.mean(axis=0))
        error = np.append(error, np.full(len(ratios), deviation**2))
        level = np.kron(np.eye(index + 1), np.ones((len(ratios), len(ratios))))
        ratios = _batch(p, mean, error, level, candidates + 1, random, bound)
    centre, _ = _posterior(p, mean, error, level)
    return float(_GRID[centre.argmin()])


def _batch(
    p: np.ndarray,
    mean: np.ndarray,
    error: np.ndarray,
    level: np.ndarray,
    wanted: int,
    random: np.random.Generator,
    bound: float | None,
) -> np.ndarray:
    centre, covariance = _posterior(p, mean, error, level)
    if bound is None:
        draws = random.multivariate_normal(centre, covariance, wanted, check_valid="ignore", method="eigh")
        return _GRID[draws.argmin(axis=1)]
    chosen = []
    for _ in range(wanted):
        at = int((centre - bound * np.sqrt(np.maximum(np.diag(covariance), 0))).argmin())
        chosen.append(_GRID[at])
        column = covariance[:, at]
        covariance = covariance - np.outer(column, column) / (column[at] + error[0])
    return np.array(chosen)


def _posterior(p: np.ndarray, mean: np.ndarray, error: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the likeliest size of a squared exponential process, each round with a level of its own."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * ((a[:, None] - b[None]) / _LENGTH) ** 2)

    best = (-math.inf, np.zeros(0), np.zeros((0, 0)))
    for size in _SIZES:
        within = size**2 * kernel(p, p) + np.diag(error) + 1e2 * level
        solved = np.linalg.solve(within, np.column_stack([mean, size**2 * kernel(p, _GRID)]))
        likelihood = -0.5 * float(mean @ solved[:, 0]) - 0.5 * float(np.linalg.slogdet(within)[1])
        if likelihood > best[0]:
            across = size**2 * kernel(_GRID, p)
            best = (likelihood, across @ solved[:, 0], size**2 * kernel(_GRID, _GRID) - across @ solved[:, 1:])
    return best[1], best[2]


def told_all_but_the_place(examples: MicroDev, noise: float, growth: float, lasting: float, rounds: int, seed: int) -> float:
    """A cliff's least regret in reach: slopes, noise and range of the place are told, and only the place is sought."""
    places = np.linspace(0.35, 0.75, 81)
    ratios = np.concatenate([np.linspace(0.3, HIGH, 4) - 0.02 * index for index in range(rounds)])
    seen = np.concatenate([examples.probe(one.tolist()) for one in np.split(ratios, rounds)], axis=1)
    q = (2 * ratios - LOW - HIGH) / (HIGH - LOW)
    effects = np.stack([q, q * q - 0.5], axis=1)
    level = np.kron(np.eye(rounds), np.ones((4, 4)))
    covariance = (np.diag((noise * (1 + growth * ratios)) ** 2) + lasting**2 * effects @ effects.T) / len(seen) + 1e2 * level
    curves = -0.1 * ratios[:, None] + np.maximum(0.0, ratios[:, None] - places)
    off = seen.mean(axis=0)[:, None] - curves
    likelihood = -0.5 * (off * np.linalg.solve(covariance, off)).sum(axis=0)
    share = np.exp(likelihood - likelihood.max())
    losses = (-0.1 * _GRID[:, None] + np.maximum(0.0, _GRID[:, None] - places)) @ (share / share.sum())
    return float(_GRID[losses.argmin()])
