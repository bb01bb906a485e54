"""The cost of learning the prune ratio: whole runs of `fit`, alternately, on the same model, examples, adapters and seed.

- plain: merge and fine-tune, without pruning;
- fixed: the same, pruned at a given ratio; a grid of 8 points is 8 such runs, of which one is timed;
- search: the first of two passes, which learns the ratio;
- single pass: from the start to the final adapter, with the ratio learned during the run.

All use 8 examples per step and the controller's default settings, and score a dev set after each epoch that may be exported. Runs
that learn the ratio score it once more when the search ends, and the single pass also scores the epochs of its search, the best of
them twice. The published procedure is two whole runs with the steps of `published_peer`. The first has rounds of probes with one
example each; the dev set is scored after each epoch of the second, whose adapter is the result. Some of its steps and probes are
timed and multiplied by their numbers. It runs twice: unchanged, on torch's own matrix products, and on Pomona's products, which
separates the cost of the procedure from the faster products. Ratios are computed within a turn; the median is reported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.published_peer import Parts, PublishedPeer
from pomona.adapters import Adapter
from pomona.backbone.attach import attached
from pomona.backbone.load import Backbone
from pomona.control import Bayes, Controller, Fixed, Grasp
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe
from pomona.runs.shared_work import SharedWork
from pomona.tuning.fit import fit
from pomona.tuning.progress import Silent
from pomona.tuning.settings import FitData, Pruning, Tuning

REPOSITORY = Path(__file__).resolve().parents[1]
TURNS = 3
GRID_POINTS = 8
ADDED, SINGLE_PASS, OF_GRID, PUBLISHED = 0.25, 1.35, 1 / 6, 12.0
PLAIN, FIXED, SEARCH, SINGLE = "plain", "fixed", "search", "single pass"
PEERS = {"published": False, "published, on Pomona's matrix products": True}
RUNS: Mapping[str, Controller | None] = {
    PLAIN: None,
    FIXED: Fixed(0.5),
    SEARCH: Bayes(mode="two_pass"),
    SINGLE: Bayes(mode="single_pass"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """What all runs have in common."""

    backbone: Backbone
    sources: Sequence[Adapter]
    data: FitData
    tuning: Tuning


class Seconds(NamedTuple):
    """Of a whole run, and of its rounds; and how many rounds these were."""

    whole: float
    probes: float
    rounds: int


class Published(NamedTuple):
    """Seconds of the published procedure: the parts of a step, the micro dev examples under one candidate, and the dev set."""

    step: Parts
    probes: float
    dev: float


def run() -> bool:
    """Print the seconds of every run, the ratios, and the published procedure's counts; whether all four bounds are met."""
    setting = given_setting()
    data, tuning = setting.data, setting.tuning
    steps, tokens = tuning.total_steps(len(data.train)), [statistics.mean(map(len, part)) for part in (data.train, data.micro_dev)]
    print(
        f"SmolLM2-135M, 2 adapters of rank 8 on q and v, {setting.backbone.device}: {steps} steps of {tuning.batch_size} of "
        f"{len(data.train)} examples ({tokens[0]:.0f} tokens each), {len(data.micro_dev)} micro dev examples ({tokens[1]:.0f}), "
        f"{len(data.dev)} dev examples after each epoch"
    )
    peers = {
        name: PublishedPeer(setting.sources, data.train, tuning.learning_rate, our_products=ours) for name, ours in PEERS.items()
    }
    for peer in peers.values():
        peer(data.train[-tuning.batch_size :])
    _seconds(dataclasses.replace(setting, data=FitData(data.train[: tuning.batch_size])), None)
    turns: list[dict[str, Seconds]] = []
    published: dict[str, list[Published]] = {name: [] for name in peers}
    for turn in range(TURNS):
        # The order turns around, so that a drift of the machine favours none.
        names = list(RUNS) if turn % 2 else list(RUNS)[::-1]
        turns.append({name: _seconds(setting, RUNS[name]) for name in names})
        print("  " + ", ".join(f"{name} {turns[-1][name].whole:.1f} s" for name in RUNS))
        first = turn * tuning.batch_size % len(data.train)
        for name, peer in peers.items():
            step = peer(data.train[first : first + tuning.batch_size])
            published[name].append(Published(step, peer.probe(data.micro_dev), peer.probe(data.dev)))
            print(f"  {name}: step {sum(step):.1f} s, probes {published[name][-1].probes:.1f} s", flush=True)
    met = _against_runs(turns)
    as_it_is, *_ = [_against_published(name, setting, turns, timed) for name, timed in published.items()]
    print(f"(bound {PUBLISHED:g}, for a full pass after each step as published)")
    return all([*met, as_it_is >= PUBLISHED])


def given_setting() -> Setting:
    """That of the recipe of the single pass; its source adapters are trained where the cache does not have them."""
    with contextlib.chdir(REPOSITORY):  # the recipe's paths begin here
        recipe, shared = read_recipe(Path("src/pomona/recipes") / "single-pass.yaml", Recipe), SharedWork()
        data = shared.encoded(recipe).data
        sources = [shared.source(source, recipe, Silent()).adapter for source in recipe.sources]
    return Setting(shared.backbone(recipe), sources, data, recipe.tuning)


def _seconds(setting: Setting, controller: Controller | None) -> Seconds:
    """A run from the sources to the adapter."""
    started = time.perf_counter()
    with attached(setting.backbone, setting.sources, dropout=setting.tuning.dropout) as attachment:
        fitted = fit(
            attachment, setting.data, setting.tuning, pruning=None if controller is None else Pruning(), controller=controller
        )
    rounds = len(fitted.control.rounds) if fitted.control else 0
    return Seconds(time.perf_counter() - started, fitted.probe_seconds, rounds)


def _against_runs(turns: Sequence[Mapping[str, Seconds]]) -> list[bool]:
    """The ratios to runs of `fit`, each printed with its bound."""
    for name in (SEARCH, SINGLE):
        rounds = turns[0][name].rounds
        probes = statistics.median(turn[name].probes / turn[PLAIN].whole for turn in turns)
        print(f"{name}: {rounds} rounds, which take {probes:.3f} of a plain run")
    added = [turn[SEARCH].whole / turn[PLAIN].whole - 1 for turn in turns]
    single = [turn[SINGLE].whole / turn[PLAIN].whole for turn in turns]
    of_grid = [turn[SINGLE].whole / (GRID_POINTS * turn[FIXED].whole) for turn in turns]
    return [
        _at_most("a search pass adds, in plain runs", added, ADDED),
        _at_most("a single pass takes, in plain runs", single, SINGLE_PASS),
        _at_most(
            f"a single pass takes, in grids of {GRID_POINTS} (one run at a fixed ratio, times {GRID_POINTS})", of_grid, OF_GRID
        ),
    ]


def _at_most(what: str, ratios: Sequence[float], bound: float) -> bool:
    median = statistics.median(ratios)
    print(f"{what}: {median:.3f} ({min(ratios):.3f} to {max(ratios):.3f}; bound {bound:.3f})", flush=True)
    return median <= bound


def _against_published(
    name: str, setting: Setting, turns: Sequence[Mapping[str, Seconds]], published: Sequence[Published]
) -> float:
    """How many single passes the published procedure takes with as many steps; printed, and as its code does in detail."""
    rule = Grasp(mode="two_pass", paper=True)
    batch, examples, epochs = setting.tuning.batch_size, len(setting.data.train), setting.tuning.epochs
    steps = setting.tuning.total_steps(examples)
    parts = [statistics.median(part) for part in zip(*(one.step for one in published), strict=True)]
    print(f"{name}, a step of {batch} examples: training {parts[0]:.2f} s, full pass {parts[1]:.2f} s, mask {parts[2]:.2f} s")

    def times(what: str, examples_a_step: int, steps: int, full_passes: int) -> float:
        """How many single passes the procedure takes; `steps` are those of one of its two runs."""
        rounds = steps // rule.steps_between
        probed = rounds * (rule.candidates + 1)
        median = statistics.median(
            (
                2 * steps * (one.step.train * examples_a_step / batch + one.step.mask)
                + full_passes * one.step.full_pass
                + probed * one.probes
                + epochs * one.dev
            )
            / turn[SINGLE].whole
            for turn, one in zip(turns, published, strict=True)
        )
        print(
            f"{name}, {what}: {2 * steps} steps of {examples_a_step}, {full_passes} full passes of {examples}, "
            f"{probed * len(setting.data.micro_dev)} probes in {rounds} rounds, {epochs} times the dev set: "
            f"{median:.1f} single passes",
            flush=True,
        )
        return median

    found = times("a full pass after each step", batch, steps, 2 * steps)
    times("norms once in the first run, as in GRASP's code", batch, steps, steps + 1)
    times("steps of one example, as many epochs", 1, examples * epochs, 2 * examples * epochs)
    return found


if __name__ == "__main__":
    run()
