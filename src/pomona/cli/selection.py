"""Which examples `pomona evaluate` is about, and with which settings: a recipe's, or those of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pomona.data import Example
    from pomona.data.tasks import Task
    from pomona.runs.recipe_model import Loading


@dataclass(frozen=True)
class Selection:
    """What is to be answered and scored.

    Args:
        task: of the examples.
        examples: one or more.
        settings: arguments of `evaluate`.
        model: of a recipe; None where the command line says it.
    """

    task: Task
    examples: Sequence[Example]
    settings: dict[str, Any] = field(default_factory=dict)
    model: Loading | None = None


def from_recipe(path: Path) -> Selection:
    """A recipe's test split."""
    from pomona.runs.examples import read_splits
    from pomona.runs.read_recipe import read_recipe
    from pomona.runs.recipe import Recipe
    from pomona.runs.recipe_model import loading

    recipe = read_recipe(path, Recipe)
    evaluation = recipe.evaluation
    settings = {"metrics": evaluation.metrics, "batch_size": evaluation.batch_size, "draws": evaluation.draws}
    settings |= {"seed": recipe.seed, "max_tokens": recipe.tuning.max_tokens, "decoding": evaluation.decoding}
    return Selection(recipe.task, read_splits(recipe).test, settings, loading(recipe))


def from_data(
    source: str, columns: Sequence[str], task: str, language: str | None, parameters: Sequence[str], count: int | None
) -> Selection:
    """All rows of a source, or `count` of them, drawn by their content."""
    from pomona.cli.values import columns_of, settings
    from pomona.components import typed
    from pomona.data import examples, read_rows
    from pomona.data.tasks import tasks
    from pomona.runs.examples import draw

    chosen = typed(tasks, task, ({"language": language} if language else {}) | settings(parameters))
    rows = examples(read_rows(source, columns_of(columns)), chosen, source)
    return Selection(chosen, draw(rows, count, seed=0))
