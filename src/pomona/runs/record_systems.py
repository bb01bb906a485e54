"""What each system is made of: where it adapts the model, how much of it was trained and is stored, and how it was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pomona.adapters import Adapter
from pomona.adapters.measure import count_entries
from pomona.runs.recipe import Recipe
from pomona.runs.record import RunRecord
from pomona.runs.shape import Ranks, differences, parameters, warning
from pomona.runs.sizes import kinds
from pomona.runs.system_trainer import MAIN, SystemTrainer
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
        found.trained_parameters = parameters(ranks, shapes)
        found.training = _training(trainer.recipe, trained, _runs(trainer, name))
        if name != MAIN:
            found.differences = differences(ranks, trainer.main_ranks, shapes)
        if found.differences:
            said = warning(found.label, found.differences, trainer.recipe.lora)
            record.warnings += [] if said in record.warnings else [said]


def _rank_loss(adapter: Adapter) -> float | None:
    """What a static merge lost to its rank; None of what is no static merge."""
    found = adapter.provenance.get("rank_loss")
    return float(found["relative"]) if isinstance(found, Mapping) else None


def _training(recipe: Recipe, trained: Fitted, runs: int) -> dict[str, float | None]:
    """The optimizer's settings, and how many whole trainings the system was picked from or took."""
    tuning = dataclasses.asdict(recipe.tuning)
    found: dict[str, float | None] = {name: tuning[name] for name in _TUNING}
    if trained.merge_weights:
        found["weights_learning_rate"] = recipe.merge.weights_learning_rate
    return found | {"runs": runs}


def _runs(trainer: SystemTrainer, name: str) -> int:
    return sum(one == name or (name == MAIN and one.startswith(f"{MAIN}_")) for one in trainer.trained)
