"""Train a plain LoRA on one task: a source or a target adapter."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pomona.adapters import Adapter, check_compatible, check_finite, read_adapter, refuse_occupied, write_adapter
from pomona.adapters.base_modules import respelled
from pomona.backbone.attach import attached, target_paths
from pomona.backbone.base_modules import modules_of
from pomona.backbone.load import Backbone, load_backbone
from pomona.data import Example
from pomona.engines import NATIVE
from pomona.errors import InputError
from pomona.runs.base_plan import Plan
from pomona.runs.encoding import encode_examples
from pomona.runs.estimate import least_bytes, plain_training, timed, tried
from pomona.runs.examples import read_examples, skipped_rows
from pomona.runs.plan import stand_in
from pomona.runs.recipe import TrainRecipe
from pomona.runs.recipe_model import loading
from pomona.runs.sources import train_plain
from pomona.tuning.progress import Progress, Silent
from pomona.tuning.settings import FitData


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainPlan(Plan):
    """What the training of one adapter works on.

    Args:
        recipe: model, data, shape and training.
        start: the adapter to go on from; None: from scratch.
        examples: what it is trained on.
        backbone: the model.
        modules: how many are adapted.
    """

    recipe: TrainRecipe
    start: Adapter | None
    examples: tuple[Example, ...]
    backbone: Backbone
    modules: int

    def facts(self) -> list[str]:
        """Data, model, adapter."""
        return [
            f"data: {len(self.examples)} examples",
            f"model: {self.backbone.name}, {len(self.backbone.linear_modules())} linear modules, {self.backbone.where}",
            f"adapter: {self.modules} modules",
        ]

    def work(self) -> list[str]:
        """Nothing else."""
        return []


def prepare_training(
    recipe: TrainRecipe, *, start: Path | str | None = None, progress: Progress | None = None, trial: bool = False
) -> TrainPlan:
    """Read, load and encode all that the training will use; says each warning.

    Args:
        recipe: model, data, shape and training.
        start: an adapter to go on from: its modules, ranks and scaling are kept, and the recipe must have no `lora`.
        progress: shown to a person.
        trial: whether to try a step of the real model, for time and memory.

    Raises:
        InputError: the first thing that is wrong.
    """
    started = time.perf_counter()
    given = None if start is None else _read_start(start, recipe)
    examples = read_examples(recipe.data, recipe.task, recipe.examples, recipe.seed)
    backbone = load_backbone(*loading(recipe))
    found = encode_examples(examples, backbone, recipe.tuning.max_tokens, "train")
    about: list[str] = []
    if given is None:
        ranks = dict.fromkeys(target_paths(backbone, recipe.lora.own_modules), recipe.lora.own_rank)
    else:
        model = modules_of(backbone.model)
        given = respelled(given, model)
        about = check_compatible([given], model, backbone.base)
        ranks = {module: given[module].rank for module in given}
    data = FitData(found.encoded)
    with attached(backbone, [given or stand_in(ranks, backbone)], dropout=recipe.tuning.dropout) as attachment:
        least = least_bytes(backbone, attachment)
        measured, untimed = tried(attachment, data, recipe.tuning, None, trial=trial)
    plan = TrainPlan(
        warnings=tuple(dict.fromkeys([*backbone.warnings, *skipped_rows(recipe.data, recipe.task), *found.warnings, *about])),
        trainings=timed([plain_training(recipe.name, data, recipe.tuning)], measured),
        prepare_seconds=time.perf_counter() - started,
        least_bytes=least,
        trial=measured,
        untimed=untimed,
        recipe=recipe,
        start=given,
        examples=examples,
        backbone=backbone,
        modules=len(ranks),
    )
    for warning in plan.warnings:
        (progress or Silent()).warn(warning)
    return plan


def plan_training(
    recipe: TrainRecipe, output: Path, *, force: bool = False, start: Path | str | None = None, trial: bool = False
) -> TrainPlan:
    """The plan of a training into a folder, which `train_adapter` would carry out.

    Raises:
        InputError: whatever `train_adapter` would raise before it begins.
    """
    refuse_occupied(output, force=force)
    return prepare_training(recipe, start=start, trial=trial)


def train_adapter(
    recipe: TrainRecipe,
    output: Path | str,
    *,
    force: bool = False,
    progress: Progress | None = None,
    start: Path | str | None = None,
) -> Adapter:
    """Train a LoRA and write it as a PEFT folder.

    Args:
        recipe: model, data, shape and training.
        output: the folder to write.
        force: replace an adapter that stands there.
        progress: shown to a person.
        start: an adapter to go on from: its modules, ranks and scaling are kept, and the recipe must have no `lora`.

    Raises:
        InputError: wrong input, found before training begins.
    """
    NATIVE.on_main(lambda: refuse_occupied(Path(output), force=force))
    plan = prepare_training(recipe, start=start, progress=progress)
    adapter = train_plain(
        plan.backbone,
        plan.examples,
        recipe.lora,
        recipe.tuning,
        seed=recipe.seed,
        label=recipe.name,
        progress=progress or Silent(),
        start=plan.start,
    )
    NATIVE.on_main(lambda: write_adapter(adapter, Path(output), force=force))
    return read_adapter(output)


def _read_start(start: Path | str, recipe: TrainRecipe) -> Adapter:
    if "lora" in recipe.model_fields_set:
        raise InputError(
            "has no effect: the training goes on from an adapter, which has its modules, ranks and scaling",
            field="lora",
            fix="Leave it out of the recipe, or leave out --from",
        )
    given = read_adapter(start)
    check_finite(given)
    return given
