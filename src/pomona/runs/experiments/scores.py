"""What an experiment found: scores over seeds with intervals and paired tests, from the files of its cells alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pomona.errors import InputError
from pomona.evaluation.scores import LOSS, MeanLoss
from pomona.metrics import Metric
from pomona.metrics.bootstrap import corpus_score
from pomona.metrics.holm import holm
from pomona.metrics.seeds import spread
from pomona.runs.experiments.over_seeds import difference_over_seeds, score_over_seeds
from pomona.runs.experiments.over_settings import average, members
from pomona.runs.experiments.recipe import Cell, Experiment
from pomona.runs.experiments.record import CellRecord, Contrast, ExperimentRecord, SettingRecord, SystemCost, SystemScore
from pomona.runs.experiments.seed_mean import Rows, rows
from pomona.runs.record import RunRecord, SystemDescription
from pomona.runs.store import PREDICTIONS, RECORD
from pomona.runs.system_trainer import MAIN
from pomona.seeding import stream


def gather(experiment: Experiment, cells: Sequence[Cell], folder: Path) -> ExperimentRecord:
    """Read the cells that are done, and score them.

    Raises:
        InputError: a cell's files cannot be read, or it answered other examples than its neighbours.
    """
    described = [_describe(cell, folder) for cell in cells]
    done = [cell for cell, one in zip(cells, described, strict=True) if one.status == "done"]
    settings = {
        setting: _setting(
            experiment,
            [cell for cell in cells if cell.setting == setting],
            [cell for cell in done if cell.setting == setting],
            [one for one in described if one.setting == setting],
            folder,
        )
        for setting in experiment.all_settings
    }
    return ExperimentRecord(
        name=experiment.name,
        seeds=list(experiment.seeds),
        against=experiment.against,
        settings=settings,
        averages={
            name: average(
                {one: settings[one] for one in members(pattern, list(settings), f"averages.{name}")},
                list(experiment.systems),
                experiment.against,
            )
            for name, pattern in experiment.averages.items()
        },
        cells=described,
        total_seconds=sum(one.total_seconds or 0.0 for one in described),
    )


def _describe(cell: Cell, folder: Path) -> CellRecord:
    known = {"setting": cell.setting, "system": cell.system, "seed": cell.seed, "path": cell.path}
    path = folder / cell.path / RECORD
    if not path.exists():
        return CellRecord(**known, status="missing")
    record = RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
    timing = record.timing
    return CellRecord(
        **known,
        status=record.status,
        error=record.error,
        prune_ratio=record.prune_ratio,
        learned_nothing=record.learned_nothing,
        sparsity=record.sparsity,
        train_seconds=timing.train_seconds + timing.probe_seconds + timing.reused_seconds,
        total_seconds=timing.total_seconds,
        tuned=record.tuned.get(cell.only or MAIN, []),
        made=record.systems.get(cell.only or MAIN),
    )


def _setting(
    experiment: Experiment, cells: Sequence[Cell], done: Sequence[Cell], described: Sequence[CellRecord], folder: Path
) -> SettingRecord:
    recipe = cells[0].recipe
    seed, draws = experiment.seeds[0], recipe.evaluation.draws
    answers = {(cell.system, cell.seed): read_answers(cell, folder) for cell in done}
    shared = _same_examples({cell.path: answers[cell.system, cell.seed] for cell in done})
    scores: dict[str, dict[str, SystemScore]] = {}
    for name, metric in (*recipe.metrics.items(), (LOSS, MeanLoss())):
        made = {key: rows(one.texts, one.references, one.losses, metric) for key, one in answers.items()}
        rows_of = {system: [made.get((system, one)) for one in experiment.seeds] for system in experiment.systems}
        scores[name] = {system: _score(of, metric, shared, draws, seed) for system, of in rows_of.items()}
        _compare(scores[name], rows_of, experiment.against, metric, shared, draws, seed)
    return SettingRecord(
        draws=draws,
        metrics=scores,
        costs={system: _cost([one for one in described if one.system == system]) for system in experiment.systems},
        signatures={name: metric.signature_for(shared.references) for name, metric in recipe.metrics.items()},
        systems=_first_made(described),
    )


def _first_made(described: Sequence[CellRecord]) -> dict[str, SystemDescription]:
    found: dict[str, SystemDescription] = {}
    for one in described:
        if one.status == "done" and one.made is not None:
            found.setdefault(one.system, one.made)
    return found


@dataclass(frozen=True, eq=False)
class CellAnswers:
    """What a cell's system answered to the test examples, in order; an unknown loss is NaN."""

    ids: list[str]
    clusters: list[str]
    references: list[list[str]]
    texts: list[str | None]
    losses: list[float]


def read_answers(cell: Cell, folder: Path) -> CellAnswers:
    """A cell's `predictions.jsonl`. Examples of one group are one cluster; an example without a group is its own.

    Raises:
        InputError: it cannot be read, or lacks what is needed.
    """
    path = folder / cell.path / PREDICTIONS
    system = cell.only or MAIN
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return CellAnswers(
            ids=[line["id"] for line in lines],
            clusters=[line.get("group") or line["id"] for line in lines],
            references=[line["references"] for line in lines],
            texts=[line["predictions"][system] for line in lines],
            losses=[math.nan if line["losses"][system] is None else float(line["losses"][system]) for line in lines],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"cannot be read: {reason}", file=path, fix="Remove the cell's folder, and resume") from error


def _same_examples(answers: Mapping[str, CellAnswers]) -> CellAnswers:
    """Any of them, after a look that all answer the same examples."""
    first = None
    for path, one in answers.items():
        first = first or (path, one)
        if (one.ids, one.clusters, one.references) != (first[1].ids, first[1].clusters, first[1].references):
            raise InputError(
                f"has other test examples than {first[0]}", field=path, fix="Remove the cell that is not up to date, and resume"
            )
    return first[1] if first else CellAnswers([], [], [], [], [])


def _score(rows_K: Sequence[Rows | None], metric: Metric, shared: CellAnswers, draws: int, seed: int) -> SystemScore:
    values = [None if one is None else corpus_score(one.statistics[one.scored], metric) for one in rows_K]
    mean, deviation, seeds, missing = spread(values)
    there = [one for one in rows_K if one is not None]
    if not there:
        return SystemScore(mean=mean, deviation=deviation, seeds=seeds, missing=missing, values=values)
    found = score_over_seeds(there, metric, shared.clusters, draws, stream(seed, "bootstrap"))
    return SystemScore(
        mean=mean,
        deviation=deviation,
        seeds=seeds,
        missing=missing,
        low=found.low,
        high=found.high,
        holds_for=found.holds_for,
        examples=found.examples,
        values=values,
    )


def _compare(
    scores: Mapping[str, SystemScore],
    rows_of: Mapping[str, Sequence[Rows | None]],
    against: str | None,
    metric: Metric,
    shared: CellAnswers,
    draws: int,
    seed: int,
) -> None:
    """Give every other system its contrast, corrected for all of them."""
    found: dict[str, Contrast] = {}
    for system, ours_K in rows_of.items():
        if against is None or system == against:
            continue
        one = difference_over_seeds(ours_K, rows_of[against], metric, shared.clusters, draws, stream(seed, "compare"))
        if one is not None:
            found[system] = Contrast(**one._asdict(), p_holm=one.p_value)
    for (system, contrast), adjusted in zip(found.items(), holm([one.p_value for one in found.values()]), strict=True):
        scores[system].contrast = contrast.model_copy(update={"p_holm": adjusted})


def _cost(cells: Sequence[CellRecord]) -> SystemCost:
    found = [(one.prune_ratio, one.sparsity, one.train_seconds) for one in cells if one.status == "done"]
    ratio, sparsity, seconds = (spread([one[place] for one in found]).mean for place in range(3))
    return SystemCost(prune_ratio=ratio, sparsity=sparsity, train_seconds=seconds)
