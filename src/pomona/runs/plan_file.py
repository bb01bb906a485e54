"""From a file to its plan, whichever kind of work it describes: a run, the training of an adapter, or an experiment."""

from __future__ import annotations

from pathlib import Path

import yaml

from pomona.runs.base_plan import Plan
from pomona.runs.experiments.recipe import Experiment, read_experiment
from pomona.runs.experiments.run import prepare_cells
from pomona.runs.plan import prepare
from pomona.runs.read_recipe import read_recipe
from pomona.runs.read_yaml import read_yaml
from pomona.runs.recipe import Recipe, TrainRecipe
from pomona.runs.shared_work import SharedWork
from pomona.runs.train_adapter import prepare_training
from pomona.tuning.progress import Silent


def plan_file(path: Path | str, *, trial: bool = False) -> Plan:
    """Read the file and prepare the work that it describes.

    Args:
        path: a recipe or an experiment, in YAML.
        trial: whether to try a step of the real model, for time and memory.

    Raises:
        InputError: the first thing that is wrong.
    """
    kind = _kind(Path(path))
    if kind is Experiment:
        experiment, cells = read_experiment(path)
        folder = Path("runs") / experiment.name
        return prepare_cells(cells, folder, SharedWork(test_seed=experiment.seeds[0]), Silent(), trial=trial)
    if kind is TrainRecipe:
        return prepare_training(read_recipe(path, TrainRecipe), trial=trial)
    return prepare(read_recipe(path, Recipe), trial=trial)


def _kind(path: Path) -> type[Recipe | TrainRecipe | Experiment]:
    """By the keys: an experiment has systems; what has no key of a run's own trains an adapter."""
    try:
        content = read_yaml(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return Recipe  # whose reader says what is wrong
    if not isinstance(content, dict) or ("data" not in content and "recipe" not in content):
        return Recipe
    if "systems" in content or "recipe" in content:
        return Experiment
    of_a_run = Recipe.model_fields.keys() - TrainRecipe.model_fields.keys()
    return Recipe if of_a_run & content.keys() else TrainRecipe
