"""Whether the statistics are valid: 95 % intervals must cover the truth in 93 to 97 % of 2,000 simulated test sets, and the paired
test must reject a true null hypothesis in 4 to 6 %.

A share of 2,000 trials has a standard error of half a point. A share outside its bounds is measured again with 10,000 new trials,
which then count; both are printed.

Scores are drawn as in real test sets: many zeros (ROUGE of titles), skewed, 0 and 1 (exact match), mixed (token F1), and BLEU of
corpora drawn from a fixed population, whose BLEU is the truth. Clusters are documents of 1 to 30 examples with correlated scores.
`coverage_seeds` has the tables for scores over several seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import coverage_seeds
from benchmarks.shares import COVERS, REJECTS, TRIALS, TRIALS_AGAIN
from pomona.data.corpora import docstring_rows
from pomona.metrics import Bleu, ExactMatch, Metric, interval, paired_difference
from pomona.seeding import derive_seed, stream


class Sample(NamedTuple):
    """A simulated test set: statistics of one system or two, [N, S] each, groups, and the score (or difference) of endless data."""

    system: np.ndarray
    other: np.ndarray | None
    groups: list[str] | None
    truth: float
    metric: Metric = ExactMatch()


Draw = Callable[[np.random.Generator], Sample]


def run() -> bool:
    """Print the tables; whether every share is within its bounds."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    good = _table("95 % intervals that hold the truth", covering_cells(), _covered, COVERS)
    good &= _table("true nulls rejected at 0.05", null_cells(), _rejected, REJECTS)
    # Few differences are possible between scores of 0 and 1: a valid test may reject less often, never more.
    good &= _table("true nulls rejected at 0.05, exact match", discrete_null_cells(), _rejected, (0.0, REJECTS[1]))
    good &= coverage_seeds.run()
    print(f"{TRIALS} trials each, 1,000 draws, {time.perf_counter() - started:.0f} s; every share within its bounds: {good}")
    return good


def share(name: str, draw: Draw, happens: Callable[[Sample, torch.Generator], bool], trials: int = TRIALS) -> float:
    """In which share of the trials it happens; the name and the trial's number alone decide what is drawn."""
    random = np.random.default_rng(derive_seed(0, name))
    return sum(happens(draw(random), stream(trial, name)) for trial in range(trials)) / trials


def _table(
    title: str,
    cells: Iterator[tuple[str, list[tuple[int, Draw]]]],
    happens: Callable[[Sample, torch.Generator], bool],
    bounds: tuple[float, float],
) -> bool:
    low, high = bounds
    good = True
    print(f"{title} (bounds {100 * low:.0f} to {100 * high:.0f} %)")
    for name, row in cells:
        shown = []
        for size, draw in row:
            found = share(f"{title}/{name}/{size}", draw, happens)
            shown.append(f"{size:4d}: {100 * found:5.2f}")
            if not low <= found <= high:
                found = share(f"{title}/{name}/{size}/again", draw, happens, TRIALS_AGAIN)
                shown[-1] += f" (again: {100 * found:.2f})"
            good &= low <= found <= high
        print(f"  {name:<58} {'  '.join(shown)}", flush=True)
    return good


def _covered(sample: Sample, generator: torch.Generator) -> bool:
    if sample.other is None:
        found = interval(sample.system, sample.metric, generator=generator, groups=sample.groups)
    else:
        found = paired_difference(sample.system, sample.other, sample.metric, generator=generator, groups=sample.groups)
    return found.low - 1e-9 <= sample.truth <= found.high + 1e-9


def _rejected(sample: Sample, generator: torch.Generator) -> bool:
    assert sample.other is not None
    found = paired_difference(sample.system, sample.other, sample.metric, generator=generator, groups=sample.groups)
    return found.p_value <= 0.05


# What is drawn ----------------------------------------------------------------------------------------------------------


def covering_cells() -> Iterator[tuple[str, list[tuple[int, Draw]]]]:
    """(what is drawn, [(examples or documents, how)])."""
    for name, scores in SCORES.items():
        yield f"{name}, N", [(size, partial(_plain, scores, size)) for size in (30, 50, 100)]
    yield "ROUGE-like, N", [(300, partial(_plain, _zeros_and_beta, 300))]
    yield "BLEU of about 39, N", [(size, partial(_bleu, size)) for size in (30, 50, 100)]
    yield "difference of two systems, ROUGE-like, N", [(size, partial(_two, _ones, 0.1, size)) for size in (30, 50, 100)]
    for sizes_name, sizes in SIZES.items():
        for name, scores in WITHIN.items():
            yield (
                f"{name}, documents of {sizes_name}",
                [(count, partial(_clustered, scores, sizes, count)) for count in (10, 20, 50)],
            )
        cells = [(count, partial(_two, sizes, 0.1, count)) for count in (10, 20, 50)]
        yield f"difference of two systems, documents of {sizes_name}", cells


def null_cells() -> Iterator[tuple[str, list[tuple[int, Draw]]]]:
    """Two systems that are equally good."""
    yield "ROUGE-like, N", [(size, partial(_two, _ones, 0.0, size)) for size in (20, 30, 50, 100)]
    for sizes_name, sizes in SIZES.items():
        yield f"ROUGE-like, documents of {sizes_name}", [(count, partial(_two, sizes, 0.0, count)) for count in (8, 20, 50)]


def discrete_null_cells() -> Iterator[tuple[str, list[tuple[int, Draw]]]]:
    """Two systems that are equally good, scored 0 or 1."""
    yield "N", [(size, partial(_two_exact, _ones, size)) for size in (20, 50, 100)]
    for sizes_name, sizes in SIZES.items():
        yield f"documents of {sizes_name}", [(count, partial(_two_exact, sizes, count)) for count in (8, 20, 50)]


def _zeros_and_beta(random: np.random.Generator, size: int) -> tuple[np.ndarray, float]:
    return np.where(random.random(size) < 0.4, 0.0, random.beta(2, 4, size)), 0.6 / 3


def _skewed(random: np.random.Generator, size: int) -> tuple[np.ndarray, float]:
    return random.beta(0.5, 2, size), 0.2


def _right_wrong_or_partly(random: np.random.Generator, size: int) -> tuple[np.ndarray, float]:
    kind = random.random(size)
    return np.select([kind < 0.4, kind < 0.7], [1.0, 0.0], random.beta(3, 3, size)), 0.4 + 0.3 / 2


def _right_or_wrong(random: np.random.Generator, size: int) -> tuple[np.ndarray, float]:
    rate = random.uniform(0.2, 0.8)  # a rate of its own for each trial: with one rate, coverage jumps with N as counts are whole
    return (random.random(size) < rate).astype(np.float64), rate


SCORES = {
    "ROUGE-like (40 % zeros, then Beta(2, 4))": _zeros_and_beta,
    "skewed (Beta(0.5, 2))": _skewed,
    "F1-like (40 % ones, 30 % zeros, then Beta(3, 3))": _right_wrong_or_partly,
    "exact match (rate 0.2 to 0.8)": _right_or_wrong,
}


def _ones(random: np.random.Generator, count: int) -> np.ndarray:
    return np.ones(count, dtype=np.int64)


def _uneven(random: np.random.Generator, count: int) -> np.ndarray:
    return 1 + random.poisson(4, count)


def _very_uneven(random: np.random.Generator, count: int) -> np.ndarray:
    return np.minimum(random.geometric(0.2, count), 30)


SIZES = {"1 + Poisson(4)": _uneven, "1 to 30, geometric": _very_uneven}


def _all_alike(random: np.random.Generator, document: np.ndarray) -> tuple[np.ndarray, float]:
    rate = random.uniform(0.2, 0.8)
    return (random.random(document[-1] + 1) < rate)[document].astype(np.float64), rate


def _rates_differ(random: np.random.Generator, document: np.ndarray) -> tuple[np.ndarray, float]:
    rate = random.uniform(0.2, 0.8)
    rates = random.beta(2 * rate, 2 * (1 - rate), document[-1] + 1)  # correlation within a document: 1 / 3
    return (random.random(len(document)) < rates[document]).astype(np.float64), rate


def _levels_differ(random: np.random.Generator, document: np.ndarray) -> tuple[np.ndarray, float]:
    level = random.beta(2, 4, document[-1] + 1)[document]
    return np.where(random.random(len(document)) < 0.3, 0.0, random.beta(6 * level, 6 * (1 - level))), 0.7 / 3


WITHIN = {"exact match, all alike": _all_alike, "exact match, correlated": _rates_differ, "ROUGE-like": _levels_differ}


def _plain(scores: Callable[..., tuple[np.ndarray, float]], size: int, random: np.random.Generator) -> Sample:
    drawn, truth = scores(random, size)
    return Sample(drawn[:, None], None, None, 100 * truth)


def _clustered(
    scores: Callable[..., tuple[np.ndarray, float]],
    sizes: Callable[[np.random.Generator, int], np.ndarray],
    count: int,
    random: np.random.Generator,
) -> Sample:
    document = np.repeat(np.arange(count), sizes(random, count))
    drawn, truth = scores(random, document)
    return Sample(drawn[:, None], None, list(map(str, document)), 100 * truth)


def _two(sizes: Callable[[np.random.Generator, int], np.ndarray], better: float, count: int, random: np.random.Generator) -> Sample:
    """Two systems on the same documents. Each answers some examples wholly wrong, system b `better` more of them."""
    document = np.repeat(np.arange(count), sizes(random, count))
    levels = random.beta(2, 4, (2, count))
    # What is hard for one is hard for the other; each has its strong and weak documents as well.
    levels = (0.5 * levels[0] + 0.5 * random.beta(2, 4, (2, count)))[:, document]
    wrong = random.random((2, len(document))) < np.array([[0.3], [0.3 + better]])
    scores = np.where(wrong, 0.0, random.beta(6 * levels, 6 * (1 - levels)))
    groups = list(map(str, document)) if len(document) > count else None
    return Sample(scores[0][:, None], scores[1][:, None], groups, 100 * better / 3)


def _two_exact(sizes: Callable[[np.random.Generator, int], np.ndarray], count: int, random: np.random.Generator) -> Sample:
    document = np.repeat(np.arange(count), sizes(random, count))
    rates = random.beta(1, 1, count)[document]
    scores = (random.random((2, len(document))) < rates).astype(np.float64)
    return Sample(scores[0][:, None], scores[1][:, None], list(map(str, document)), 0.0)


def _bleu(size: int, random: np.random.Generator) -> Sample:
    population, truth = _population()
    return Sample(population[random.integers(0, len(population), size)], None, None, truth, Bleu())


@cache
def _population() -> tuple[np.ndarray, float]:
    """BLEU's statistics of first lines of documentation with some words left out and some changed, and their BLEU."""
    random = np.random.default_rng(0)
    rows = []
    for row in docstring_rows("numpy"):
        words = row["summary"].split()
        kept = [word if chance < 0.65 else "something" for word in words if (chance := random.random()) < 0.9]
        rows.append(Bleu().statistics(" ".join(kept), [row["summary"]]))
    statistics = np.stack(rows)
    return statistics, float(Bleu().aggregate(statistics.sum(axis=0)[None], np.array([float(len(rows))]))[0])


if __name__ == "__main__":
    run()
