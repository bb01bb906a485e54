"""The adapters that come with the program."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pomona.adapters import check_finite, read_adapter
from pomona.adapters.embedded import EMBEDDED, embedded_folder, embedded_names
from pomona.errors import InputError
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import TrainRecipe

RECIPES = Path(__file__).parents[2] / "src" / "pomona" / "recipes" / "demo-sources"


@pytest.mark.parametrize("name", embedded_names())
def test_an_embedded_adapter_is_small_whole_and_as_its_recipe_says(name: str) -> None:
    adapter = read_adapter(f"{EMBEDDED}{name}")
    check_finite(adapter)
    recipe = read_recipe(RECIPES / f"{name.removeprefix('docstrings-')}.yaml", TrainRecipe)
    assert {adapter[module].rank for module in adapter} == {recipe.lora.own_rank}
    assert {module.rsplit(".", 1)[-1] for module in adapter} == set(recipe.lora.own_modules)
    assert adapter.provenance["path"] == f"embedded:{name}"
    assert adapter.provenance["base"]
    folder = embedded_folder(f"{EMBEDDED}{name}")
    assert (folder / "adapter_model.safetensors").stat().st_size <= 2e6
    assert "Apache-2.0" in (folder / "README.md").read_text()
    assert float(torch.stack([adapter[module].B.abs().max() for module in adapter]).min()) > 0  # every module was trained


def test_there_are_two() -> None:
    assert embedded_names() == ["docstrings-stdlib", "docstrings-torch"]


@pytest.mark.parametrize("name", ["docstring-torch", "", "../docstrings-torch", "docstrings-torch/"])
def test_another_name_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(InputError, match=r"no such embedded adapter.*docstrings-"):
        read_adapter(f"{EMBEDDED}{name}")
