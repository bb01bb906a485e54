"""Train a plain LoRA on one task: a source or a target adapter."""

from __future__ import annotations

from pathlib import Path

from pomona.adapters import Adapter, check_compatible, check_finite, read_adapter, refuse_occupied, write_adapter
from pomona.adapters.base_modules import respelled
from pomona.backbone.base_modules import modules_of
from pomona.backbone.load import load_backbone
from pomona.errors import InputError
from pomona.runs.encoding import encode_examples
from pomona.runs.inputs import read_examples, skipped_rows, train_plain
from pomona.runs.recipe import TrainRecipe
from pomona.tuning.progress import Progress, Silent


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
    output = Path(output)
    refuse_occupied(output, force=force)
    given = None if start is None else _read_start(start, recipe)
    examples = read_examples(recipe.data, recipe.task, recipe.examples, recipe.seed)
    backbone = load_backbone(recipe.model, recipe.device, recipe.dtype)
    progress = progress or Silent()
    found = encode_examples(examples, backbone, recipe.tuning.max_tokens, "train")
    about: list[str] = []
    if given is not None:
        model = modules_of(backbone.model)
        given = respelled(given, model)
        about = check_compatible([given], model, backbone.base)
    for warning in dict.fromkeys([*backbone.warnings, *skipped_rows(recipe.data, recipe.task), *found.warnings, *about]):
        progress.warn(warning)
    adapter = train_plain(
        backbone, examples, recipe.lora, recipe.tuning, seed=recipe.seed, label=recipe.name, progress=progress, start=given
    )
    write_adapter(adapter, output, force=force)
    return read_adapter(output)


def _read_start(start: Path | str, recipe: TrainRecipe) -> Adapter:
    if "lora" in recipe.model_fields_set:
        raise InputError(
            "has no effect: the training goes on from an adapter, which has its modules, ranks and scaling",
            field="lora",
            mend="Leave it out of the recipe, or leave out --from",
        )
    given = read_adapter(start)
    check_finite(given)
    return given
