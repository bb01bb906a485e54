"""Look at everything that a recipe names, and train nothing: the first thing that `adapt` does, and all that a dry run does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pomona.adapters import Finding
from pomona.backbone.load import Backbone
from pomona.data import Splits
from pomona.errors import InputError
from pomona.metrics.script import script_warning
from pomona.runs.encoding import Encoding
from pomona.runs.evaluate import ready_metrics
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe
from pomona.runs.shared import Shared
from pomona.tuning.progress import Progress, Silent


@dataclass(frozen=True)
class Checked:
    """What a run of a recipe works on.

    Args:
        splits: the target's.
        backbone: the model.
        encoding: the splits as tokens.
        warnings: all that a user should know before it begins, each once.
        first: splits and tokens of the pass that learns the ratio, where it has a seed of its own.
    """

    splits: Splits
    backbone: Backbone
    encoding: Encoding
    warnings: list[str]
    first: tuple[Splits, Encoding] | None = None


def check_everything(recipe: Recipe, shared: Shared, progress: Progress) -> Checked:
    """Read, load and encode all that a run of the recipe will use, and try its metrics; says each warning.

    Raises:
        InputError: the first thing that is wrong.
    """
    progress.begin("reading data", 0)
    splits = shared.splits(recipe)
    first = recipe.first_pass
    first_splits = None if first is None else shared.splits(first)
    check_metrics(recipe)
    progress.end(", ".join(f"{len(part)} {name}" for name, part in splits.named()))
    progress.begin("loading the model and checking the sources", 0)
    backbone = shared.backbone(recipe)
    warnings = shared.warnings(recipe)
    encoding = shared.encoded(recipe)
    searched = None
    if first is not None and first_splits is not None:
        searched = first_splits, shared.encoded(first)
        warnings += shared.warnings(first) + [f"the search, of seed {first.seed}: {one}" for one in searched[1].warnings]
    progress.end(backbone.name)
    references = [reference for example in splits.test for reference in example.references]
    script = script_warning(references, recipe.task.language, {**recipe.metrics, **dict.fromkeys(recipe.judges)}, "the references")
    warnings = list(dict.fromkeys([*warnings, *encoding.warnings, *filter(None, [script])]))
    for warning in warnings:
        progress.warn(warning)
    return Checked(splits, backbone, encoding, warnings, searched)


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
    found = check_everything(recipe, Shared(test_seed=recipe.seed), Silent())
    sizes = ", ".join(f"{len(part)} {name}" for name, part in found.splits.named())
    sources = ", ".join(source.name for source in recipe.sources)
    lines = [
        f"data: {sizes}; no split shares a document with another",
        f"model: {found.backbone.name}, {len(found.backbone.linear_modules())} linear modules",
        f"sources: {sources}",
    ]
    return [Finding("ok", subject, one) for one in lines] + [Finding("warning", subject, one) for one in found.warnings]


def check_metrics(recipe: Recipe) -> None:
    """Try every metric that the recipe names, on one pair.

    Raises:
        InputError: an encoder or a segmenter that cannot be had.
    """
    ready_metrics(recipe.evaluation.metrics or recipe.task.metrics, recipe.task.language)
    ready_metrics(recipe.judges, recipe.task.language)
