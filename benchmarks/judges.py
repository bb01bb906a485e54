"""How often the dev loss and a metric choose another epoch, and what that costs: `python -m benchmarks judges FOLDER...`.

Every finished run folder below the given folders is read. Nothing is trained.

The first table needs runs that `select_by` a metric: these have both dev loss and dev score of each epoch. Its cost is measured on
the dev set itself, so it favours the metric. The second table compares runs whose recipes differ in nothing but `select_by` and
`select_tolerance`: the trainings are then equal, only the choice differs, and its cost is measured on the test set. An experiment
makes such runs: `settings: {by_loss: {select_by: loss}, by_f1: {select_by: token_f1}}`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pomona.metrics.student import student_quantile
from pomona.report.read import EpochLine, RunFolder, read_run

LOSS = "loss"
_JUDGE = ("name", "select_by", "select_tolerance")


class Within(NamedTuple):
    """A training with both measures of its epochs.

    Args:
        judge: the metric.
        differ: whether the lowest dev loss and the highest dev score are of other epochs.
        lost: dev score of the best epoch by score minus that of the best by loss.
    """

    judge: str
    differ: bool
    lost: float


class Between(NamedTuple):
    """A training that was judged in two ways.

    Args:
        judge: the other judge than the loss.
        differ: whether it kept another epoch or another point of `evaluation.tune` than the loss did.
        gained: test score with this judge minus test score with the loss.
    """

    judge: str
    differ: bool
    gained: float


def run(arguments: Sequence[str] = ()) -> bool:
    """Print both tables; whether there was anything to compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks judges", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="it holds run folders, or is one")
    places = {record.parent for folder in parser.parse_args(arguments).folders for record in folder.rglob("record.json")}
    runs = [found for place in sorted(places) if (found := read_run(place)).record.status == "done"]
    one, other = list(within(runs)), list(between(runs))
    print(f"{len(runs)} finished runs")
    if one:
        print("\n| judge | trainings | loss and score choose another epoch | dev score lost by the loss's choice |")
        print("| --- | ---: | ---: | ---: |")
    for judge in sorted({found.judge for found in one}):
        mine = [found for found in one if found.judge == judge]
        print(f"| {judge} | {len(mine)} | {_share(mine)} | {_mean([found.lost for found in mine])} |")
    if other:
        print("\n| judge against the loss | trainings | another choice | test score gained | gained where the choice differs |")
        print("| --- | ---: | ---: | ---: | ---: |")
    for judge in sorted({found.judge for found in other}):
        mine = [found for found in other if found.judge == judge]
        changed = [found.gained for found in mine if found.differ]
        print(f"| {judge} | {len(mine)} | {_share(mine)} | {_mean([found.gained for found in mine])} | {_mean(changed)} |")
    return bool(one or other)


def within(runs: Sequence[RunFolder]) -> Iterator[Within]:
    """Every training whose epochs have both a dev loss and a dev score."""
    for found in runs:
        for epochs in _exportable(found).values():
            judged = [(epoch.dev_loss, epoch.dev_score) for epoch in epochs]
            pairs = [(loss, score) for loss, score in judged if loss is not None and score is not None]
            if len(pairs) > 1:
                by_loss = min(pairs, key=lambda pair: pair[0])
                by_score = max(pairs, key=lambda pair: pair[1])
                yield Within(_judge(found), by_loss is not by_score, by_score[1] - by_loss[1])


def between(runs: Sequence[RunFolder]) -> Iterator[Between]:
    """Every training that was judged both by the loss and in another way."""
    alike: dict[str, dict[str, RunFolder]] = {}
    for found in runs:
        alike.setdefault(_without_judge(found), {})[_judge(found)] = found
    for group in alike.values():
        reference = group.pop(LOSS, None)
        for judge, found in group.items() if reference else ():
            assert reference is not None
            metric = reference.record.primary_metric
            mine, theirs = _choices(found), _choices(reference)
            for system in mine.keys() & theirs.keys():
                here, there = (one.record.metrics.get(system, {}).get(metric) for one in (found, reference))
                if here is not None and there is not None:
                    yield Between(judge, mine[system] != theirs[system], here.value - there.value)


def _judge(found: RunFolder) -> str:
    """`token_f1`, or `token_f1, tolerance 1`."""
    recipe = found.record.recipe
    tolerance = recipe.get("select_tolerance") or 0
    return f"{recipe.get('select_by', LOSS)}" + (f", tolerance {tolerance:g}" if tolerance else "")


def _without_judge(found: RunFolder) -> str:
    """All that must be equal in two runs that are compared."""
    recipe = {name: value for name, value in found.record.recipe.items() if name not in _JUDGE}
    splits = {name: split.fingerprint for name, split in found.record.splits.items()}
    return json.dumps([recipe, splits], sort_keys=True)


def _exportable(found: RunFolder) -> Mapping[str, list[EpochLine]]:
    """The epochs of each training from the first one that could be exported: it is the best so far."""
    epochs: dict[str, list[EpochLine]] = {}
    for epoch in found.epochs:
        if epoch.best or epoch.system in epochs:
            epochs.setdefault(epoch.system, []).append(epoch)
    return epochs


def _choices(found: RunFolder) -> dict[str, tuple[object, ...]]:
    """System -> the kept epoch, and the chosen point of the grid."""
    chosen: dict[str, tuple[object, ...]] = {}
    for system, epochs in _exportable(found).items():
        kept = epochs[-1].kept_epoch or [epoch.epoch for epoch in epochs if epoch.best][-1]
        points = [(one.learning_rate, one.epochs) for one in found.record.tuned.get(system, []) if one.chosen]
        chosen[system] = (kept, *points)
    return chosen


def _share(found: Sequence[Within] | Sequence[Between]) -> str:
    differ = sum(one.differ for one in found)
    return f"{differ} ({differ / len(found):.0%})"


def _mean(values: Sequence[float]) -> str:
    """The mean, with its 95 % interval over trainings where there are two or more."""
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    half = student_quantile(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return f"{mean:.2f} ({mean - half:.2f} to {mean + half:.2f})"
