"""The recipes of the learned ratio say what their comments say: the published setting, and what is compared with what."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pomona.control import Bayes, Controller, Fixed, Grasp, Grid, Layerwise, controllers
from pomona.data.splits import SplitSizes
from pomona.data.tasks import ExtractiveQA
from pomona.importance import DeltaSensitivity, Magnitude
from pomona.runs.experiments.recipe import Cell, read_experiment
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import FirstPass, Merge, Recipe
from pomona.tuning.settings import Pruning

RECIPES = Path(__file__).resolve().parents[2] / "src" / "pomona" / "recipes"
COMPARED = ("grasp-scitldr-title", "grasp-xquad-ar", "grasp-xquad-zh")


def cells(name: str) -> list[Cell]:
    """Of the first seed."""
    return [cell for cell in read_experiment(RECIPES / "experiments" / f"{name}.yaml")[1] if cell.seed == 0]


def round_steps(recipe: Recipe) -> list[int]:
    """After which steps a whole run has rounds."""
    assert isinstance(recipe.controller, Controller)
    assert recipe.splits.train is not None
    tuning = recipe.search.tuning(recipe.tuning) if recipe.passes_twice else recipe.tuning
    steps = tuning.total_steps(recipe.splits.train)
    state = recipe.controller.start(0, steps)
    return [step for step in range(1, steps + 1) if recipe.controller.round_due(state, step)]


def test_the_published_setting() -> None:
    """Every number: fifty rounds need 500 steps, which fifty examples give in ten epochs one by one; the final run has 70."""
    recipe = read_recipe(RECIPES / "grasp-lora.yaml", Recipe)
    assert recipe.splits == SplitSizes(train=50, micro_dev=16, dev=50, test=100)
    assert round_steps(recipe) == [10 * index for index in range(1, 51)]
    assert recipe.tuning.total_steps(50) == 70
    learned = recipe.controller
    assert isinstance(learned, Grasp)
    assert (learned.passes, learned.paper, learned.candidates) == (2, True, 3)
    assert (learned.prune_ratio_min, learned.prune_ratio_max, learned.prune_ratio_start) == (0.10, 0.80, 0.40)
    assert learned.start(0, 500).policies[0].deviation == pytest.approx(0.70 / 6, rel=1e-4)
    assert (learned.learning_rate, learned.anchor, learned.entropy, learned.max_commit_change) == (0.05, 0.05, 0.01, 0.10)
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.target_modules) == (8, 32, ("q_proj", "v_proj"))
    assert recipe.merge == Merge(method="linear", target=True, paper=True)
    search, final = recipe.search, recipe.tuning
    assert (search.metric, search.seed) == (Magnitude(), 42)
    assert (search.tuning(final).accumulation_steps, final.accumulation_steps, final.batch_size) == (1, 8, 1)
    assert (search.tuning(final).patience_epochs, final.patience_epochs, final.dropout) == (3, 3, 0)
    pruning = recipe.pruning
    assert pruning == Pruning(metric=DeltaSensitivity(), paper=True, masks="adapter", prunes_ties=True)
    assert pruning == pruning.following(learned), "so the grid's runs prune as the final one does"


def test_the_published_setting_has_the_data_and_the_optimizer_of_the_grid_s_paper() -> None:
    grid, grasp = (read_recipe(RECIPES / f"{name}.yaml", Recipe) for name in ("adaptive-lora-merge", "grasp-lora"))
    for part in ("model", "task", "data", "splits", "sources", "lora", "select_by"):
        assert getattr(grasp, part) == getattr(grid, part)
    assert dataclasses.replace(grasp.tuning, dropout=grid.tuning.dropout) == grid.tuning


def test_the_published_comparison_is_of_final_runs_of_three_seeds_with_one_search() -> None:
    found = read_experiment(RECIPES / "experiments" / "grasp-published.yaml")[1]
    assert {cell.seed for cell in found} == {0, 1, 2}
    learned = [cell.recipe.first_pass for cell in found if cell.system == "learned"]
    assert len({one.model_copy(update={"name": ""}).yaml() for one in learned if one is not None}) == 1
    assert None not in learned
    first = {cell.system: cell.recipe for cell in found if cell.seed == 0}
    assert first["grid"].controller == Grid()
    assert first["unpruned"].controller == Fixed(0)
    changes = {"name": "", "controller": Fixed(0), "search": FirstPass()}
    assert len({recipe.model_copy(update=changes).yaml() for recipe in first.values()}) == 1


def test_the_single_pass_has_the_rounds_of_its_comment_and_reuses_adapters_of_another_experiment() -> None:
    recipe = read_recipe(RECIPES / "single-pass.yaml", Recipe)
    assert recipe.controller == Bayes(interval_steps=5, candidates=2)
    assert not recipe.passes_twice
    assert round_steps(recipe) == [5, 10, 15]
    other = cells("pruning-scitldr-title")[0].recipe
    for part in ("model", "task", "data", "splits", "sources", "merge", "lora", "tuning", "pruning"):
        assert getattr(recipe, part) == getattr(other, part)


@pytest.mark.parametrize("name", COMPARED)
def test_every_way_to_the_ratio_is_compared_on_the_same_ground(name: str) -> None:
    main = {cell.system: cell.recipe for cell in cells(name) if cell.only is None}
    single = Bayes(interval_steps=5, candidates=2)
    found = main["grid_best"].controller
    assert isinstance(found, Fixed)
    assert found.prune_ratio in Grid().prune_ratios
    assert {system: recipe.controller for system, recipe in main.items()} == {
        "unpruned": Fixed(0),
        "p50": Fixed(0.5),
        "grid": Grid(),
        "tpe": controllers.create("tpe", {}),
        "grid_best": found,
        "two_pass": dataclasses.replace(single, mode="two_pass"),
        "single_pass": single,
        "grasp": Grasp(interval_steps=5, candidates=2),
        "no_feedback": single,
        "layerwise": Layerwise(interval_steps=5, candidates=2),
        "paper": Grasp(interval_steps=5, candidates=3, mode="two_pass", paper=True),
    }
    assert {system: recipe.pruning.feedback for system, recipe in main.items() if recipe.pruning.feedback != "search"} == {
        "no_feedback": "never"
    }
    same = {"name": "", "controller": single, "pruning": main["unpruned"].pruning}
    assert len({recipe.model_copy(update=same).yaml() for recipe in main.values()}) == 1
    assert len({dataclasses.replace(recipe.pruning, feedback="search") for recipe in main.values()}) == 1
    assert {recipe.dtype for recipe in main.values()} == {"bfloat16"}


def test_the_two_languages_differ_in_language_data_and_length_alone() -> None:
    arabic, chinese = (cells(name) for name in COMPARED[1:])
    for one, other in zip(arabic, chinese, strict=True):
        assert one.system == other.system
        same = ("name", "data") if one.system != "grid_best" else ("name", "data", "controller")  # what the grid found in each
        changes = {part: getattr(other.recipe, part) for part in same}
        assert isinstance(one.recipe.task, ExtractiveQA)
        assert (one.recipe.task.language, other.recipe.task.language) == ("ar", "zh")
        changes["task"] = dataclasses.replace(one.recipe.task, language="zh", max_document_characters=150)
        assert one.recipe.model_copy(update=changes) == other.recipe
        assert one.recipe.merge.target


def test_the_ablation_takes_one_thing_away_at_a_time_from_either_controller() -> None:
    found = {(cell.setting, cell.system): cell.recipe.controller for cell in cells("grasp-ablation")}
    assert {setting for setting, _ in found} == {"mended", "published"}
    for setting in ("mended", "published"):
        whole = found[setting, "whole"]
        assert isinstance(whole, Grasp)
        assert (whole.paper, whole.passes) == ((True, 2) if setting == "published" else (False, 1))
        assert found[setting, "no_entropy"] == dataclasses.replace(whole, entropy=0)
        assert found[setting, "no_anchor"] == dataclasses.replace(whole, anchor=0)
        assert found[setting, "no_step_bound"] == dataclasses.replace(whole, max_commit_change=1)
    # Every two of 28 steps, and one pass ends before the last of them; every ten of 200.
    assert all(len(round_steps(cell.recipe)) == (20 if cell.setting == "published" else 13) for cell in cells("grasp-ablation"))


def test_the_ablation_s_published_half_is_the_published_setting_but_for_its_length_and_seed() -> None:
    whole = next(cell.recipe for cell in cells("grasp-ablation") if (cell.setting, cell.system) == ("published", "whole"))
    published = read_recipe(RECIPES / "grasp-lora.yaml", Recipe)
    for part in ("merge", "lora", "pruning"):
        assert getattr(whole, part) == getattr(published, part)
    assert whole.tuning == dataclasses.replace(published.tuning, epochs=4, patience_epochs=None)
    assert whole.search == published.search.model_copy(update={"patience_epochs": None, "seed": None})
    assert isinstance(published.controller, Grasp)
    spelt_out = {"deviation_start": None, "interval_steps": None}  # which are these by default
    assert whole.controller == dataclasses.replace(published.controller, **spelt_out)


def test_the_micro_dev_sizes_are_the_paper_s_and_nothing_else_differs() -> None:
    found = cells("grasp-micro-dev")
    assert [cell.recipe.splits.micro_dev for cell in found] == [4, 8, 16, 32]
    sizes = SplitSizes(train=50, micro_dev=16, dev=32, test=100)
    assert len({cell.recipe.model_copy(update={"name": "", "splits": sizes}).yaml() for cell in found}) == 1
    assert {cell.recipe.controller for cell in found} == {Bayes(settle_fraction=0.97, interval_steps=5, candidates=2)}
    assert round_steps(found[0].recipe) == [5, 10, 15, 20, 25]
