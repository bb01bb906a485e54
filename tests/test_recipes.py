"""The recipes of the package: each is sound by itself, and reads what anybody can get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pomona.errors import InputError
from pomona.recipes import packaged, read_packaged
from pomona.runs.experiments.recipe import Experiment
from pomona.runs.mirror import VARIABLE
from pomona.runs.read_recipe import parse_recipe
from pomona.runs.recipe import Recipe, TrainRecipe

ROOT = Path(__file__).parents[1]
RECIPES = {one.name: one for one in packaged()}


def data_of(content: Any) -> Iterator[dict[str, Any]]:
    """Every `data` at any depth."""
    if isinstance(content, dict):
        yield from (value for key, value in content.items() if key == "data")
        content = list(content.values())
    for value in content if isinstance(content, list) else ():
        yield from data_of(value)


def test_every_file_is_listed_with_its_verb_and_a_sentence() -> None:
    folder = ROOT / "src/pomona/recipes"
    assert RECIPES.keys() == {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml")}
    assert {name for name, one in RECIPES.items() if not 20 < len(one.description) < 200} == set()
    assert RECIPES["demo"].verb == "adapt"
    assert RECIPES["experiments/ratio"].verb == "experiment"
    assert RECIPES["few-shot/qa-en"].verb == "train-adapter"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_stands_alone_and_reads_public_data(name: str) -> None:
    """What `pomona recipes NAME --output FILE` writes is sound, and no `data` names a file of this machine."""
    text = read_packaged(name)
    content = yaml.safe_load(text)
    if RECIPES[name].verb == "experiment":  # its cells: tests/runs/experiments/test_recipe.py
        parse_recipe(content, Experiment)
        parse_recipe(content["recipe"], Recipe)
    else:
        parse_recipe(content, Recipe if RECIPES[name].verb == "adapt" else TrainRecipe)
    for data in data_of(content):
        sources: list[Any] = [data[split] for split in ("train", "dev", "test") if split in data]
        flat = [one for source in sources for one in (source if isinstance(source, list) else [source])]
        assert [one for one in flat if not one.startswith("hub:")] == []


def test_an_experiment_has_its_recipe_in_it() -> None:
    alone, inner = (yaml.safe_load(read_packaged(name)) for name in ("experiments/ratio", "adaptive-lora-merge"))
    assert alone["recipe"] == inner
    assert set(alone) == {"name", "recipe", "seeds", "systems", "against"}


def test_a_name_that_is_none_gets_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no such recipe \(got 'experiments/rati'\)\. Did you mean 'experiments/ratio'"):
        read_packaged("experiments/rati")


def test_the_mirror_of_the_results_has_every_data_set_of_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With it, a recipe reads local files only, but for the papers' own data sets."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(VARIABLE, "benchmarks/mirror.yaml")
    for name, one in RECIPES.items():
        if one.verb == "adapt":
            recipe = parse_recipe(yaml.safe_load(read_packaged(name)), Recipe)
            datas = [recipe.data, *(source.data for source in recipe.sources if source.data)]
            assert [data.origin for data in datas if "hub:" in data.origin] == [], name
    table = yaml.safe_load(Path("benchmarks/mirror.yaml").read_text(encoding="utf-8"))
    named = "".join(read_packaged(name) for name in RECIPES)
    assert [source for source in table if f'"{source}"' not in named] == []  # nothing that no recipe names
