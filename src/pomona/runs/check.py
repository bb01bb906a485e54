"""Look at everything that a recipe names, and train nothing: what `--dry-run` and `pomona check` do."""

from __future__ import annotations

from pathlib import Path

from pomona.adapters import Finding
from pomona.backbone.load import load_backbone
from pomona.errors import InputError
from pomona.runs.evaluate import ready_metrics
from pomona.runs.inputs import check_sources, read_splits
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe


def check_recipe(path: Path | str) -> list[Finding]:
    """Check a recipe file and everything it names; the first thing that is wrong is an `error` among the findings."""
    try:
        return check_inputs(read_recipe(path, Recipe), str(path))
    except InputError as error:
        return [Finding("error", str(path), str(error))]


def check_inputs(recipe: Recipe, subject: str) -> list[Finding]:
    """What a run of the recipe would work on, and warnings; `subject` names the recipe in them.

    Raises:
        InputError: the first thing that is wrong.
    """
    splits = read_splits(recipe)
    check_metrics(recipe)
    backbone = load_backbone(recipe.model, recipe.device, recipe.dtype)
    warnings = check_sources(recipe, backbone)
    sizes = ", ".join(f"{len(part)} {name}" for name, part in splits.named())
    sources = ", ".join(source.name for source in recipe.sources)
    found = [
        f"data: {sizes}; no split shares a document with another",
        f"model: {backbone.name}, {len(backbone.linear_modules())} linear modules",
        f"sources: {sources}",
    ]
    return [Finding("ok", subject, one) for one in found] + [Finding("warning", subject, one) for one in warnings]


def check_metrics(recipe: Recipe) -> None:
    """Try every metric that the recipe names, on one pair.

    Raises:
        InputError: an encoder or a segmenter that cannot be had.
    """
    ready_metrics(recipe.evaluation.metrics or recipe.task.metrics, recipe.task.language)
    ready_metrics(recipe.judges, recipe.task.language)
