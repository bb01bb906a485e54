"""What each system is made of: where it adapts the model, how much of it was trained and is stored, and how it was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from pomona.adapters import Adapter
from pomona.adapters.measure import count_entries
from pomona.evaluation.scores import LOSS
from pomona.runs.recipe import Recipe
from pomona.runs.record import PointRecord, RunRecord
from pomona.runs.shape import Ranks, differences, parameters, warning
from pomona.runs.sizes import kinds
from pomona.runs.system_trainer import MAIN, SystemTrainer, system_of
from pomona.runs.tune import AS_GIVEN, Point
from pomona.runs.tuned import TriedPoint
from pomona.tuning.settings import Fitted

_TUNING = (
    "learning_rate",
    "learning_rate_decay",
    "weight_decay",
    "epochs",
    "batch_size",
    "accumulation_steps",
    "dropout",
    "gradient_clip",
    "patience_epochs",
)


def describe_systems(record: RunRecord, trainer: SystemTrainer, systems: Mapping[str, Adapter | None]) -> None:
    """Fill in what the systems of the record are made of, and warn of a trained one that differs from the main system.

    Args:
        record: has the systems already.
        trainer: where they were trained.
        systems: the adapter of each; None for the bare model.
    """
    shapes = trainer.backbone.shapes()
    for name, adapter in systems.items():
        if adapter is None:
            continue
        found, counted = record.systems[name], count_entries(adapter)
        found.adapted = kinds(adapter.modules)
        found.rank = max(adapter[module].rank for module in adapter)
        found.stored_parameters, found.padding, found.zeros = counted.stored, counted.padding, counted.sparsity
        found.rank_loss = _rank_loss(trainer.starts.get(name, adapter))
        trained = trainer.trained.get(name)
        if trained is None or not trained.sparsity:  # not by a gradient
            continue
        ranks: Ranks = {module: one.entries_A // shapes[module][1] for module, one in trained.sparsity.items()}
        found.trained_parameters = trained.coefficients or parameters(ranks, shapes)
        point = next((one.point for one in trainer.tried.get(name, ()) if one.chosen), AS_GIVEN)
        found.training = _training(trainer.recipe, point, trained, _runs(trainer, name))
        grid = trainer.recipe.evaluation.tune
        found.tuned_over = None if grid is None else {key: list(values) for key, values in grid if values}
        if name != MAIN and not trained.coefficients:
            found.differences = differences(ranks, trainer.main_ranks, shapes)
        if found.differences:
            said = warning(found.label, found.differences, trainer.recipe.lora)
            record.warnings += [] if said in record.warnings else [said]


def _rank_loss(adapter: Adapter) -> float | None:
    """What a static merge lost to its rank; None of what is no static merge."""
    found = adapter.provenance.get("rank_loss")
    return float(found["relative"]) if isinstance(found, Mapping) else None


def _training(recipe: Recipe, point: Point, trained: Fitted, runs: int) -> dict[str, float | None]:
    """The optimizer's settings, and how many whole trainings the system was picked from or took."""
    tuning = dataclasses.asdict(point.tuning(recipe.tuning))
    found: dict[str, float | None] = {name: tuning[name] for name in _TUNING}
    if trained.merge_weights:
        rate = recipe.merge.weights_rate or recipe.merge.coefficients.learning_rate  # the second of `target_recalibrated`
        found["weights_learning_rate"] = point.weights_rate(rate, recipe.tuning)
    if trained.coefficients:
        found["learning_rate"] = None
    return found | {"runs": runs}


def _runs(trainer: SystemTrainer, name: str) -> int:
    return sum(system_of(one) == name for one in trainer.trained)


def describe_tuning(record: RunRecord, trainer: SystemTrainer) -> None:
    """Fill in at which points of the grid each system was trained, and warn of a grid that may be too narrow."""
    for name, tried in trainer.tried.items():
        by_loss = trainer.recipe.select_by == LOSS
        record.tuned[name] = [_point(one, by_loss=by_loss) for one in tried]
        failed = [one for one in tried if one.error]
        record.warnings += [f"{name} could not be trained at {one.point.label}, which counts as the worst" for one in failed]
        if (edge := _edge(tried)) is not None:
            record.warnings.append(f"the dev set chose the {edge} for {name}: another one beyond it may be better")


def _point(one: TriedPoint, *, by_loss: bool) -> PointRecord:
    return PointRecord(
        learning_rate=one.point.learning_rate,
        epochs=one.point.epochs,
        dev_loss=one.dev_loss,
        dev_score=None if by_loss else one.score,
        kept_epoch=one.epoch,
        runs=one.runs,
        tokens=one.tokens,
        seconds=one.seconds,
        chosen=one.chosen,
        error=one.error or None,
    )


def _edge(tried: Sequence[TriedPoint]) -> str | None:
    """`lowest learning rate, 1e-05`, where the dev set chose an end of three learning rates or more."""
    rates = sorted({one.point.learning_rate for one in tried if one.point.learning_rate is not None})
    chosen = next(one.point.learning_rate for one in tried if one.chosen)
    if len(rates) < 3 or chosen not in (rates[0], rates[-1]):
        return None
    return f"{'lowest' if chosen == rates[0] else 'highest'} learning rate of the grid, {chosen:g},"
