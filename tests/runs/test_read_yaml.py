"""YAML as people mean it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pomona.cli.values import settings
from pomona.components import typed
from pomona.data.tasks import Summarization, tasks
from pomona.errors import InputError
from pomona.runs.read_recipe import parse_recipe, read_recipe
from pomona.runs.read_yaml import read_yaml
from pomona.runs.recipe import Recipe, TrainRecipe

RECIPE = "data: {train: x.jsonl}\nsources: [{name: a, adapter: a}]\n"


@pytest.mark.parametrize("text", ["no", "yes", "on", "off", "n", "y", "No", "NO", "12:30", "2024-01-31", "1e-3"])
def test_words_and_times_are_text(text: str) -> None:
    assert read_yaml(text) == text
    assert yaml.safe_load(yaml.safe_dump({"it": text}))["it"] == read_yaml(yaml.safe_dump({"it": text}))["it"] == text


@pytest.mark.parametrize(
    "text",
    ["true", "False", "null", "~", "1", "-3", "0.5", "1.5e+3", "017", "0x1f", "1_000", ".inf", "[1, a]", "{a: {b: 1}}"],
)
def test_all_else_is_as_it_was(text: str) -> None:
    assert read_yaml(text) == yaml.safe_load(text)
    assert type(read_yaml(text)) is type(yaml.safe_load(text))
    assert yaml.safe_load("no") is False  # PyYAML's own loader is left alone


def test_norwegian_wherever_a_language_is_given(tmp_path: Path) -> None:
    path = tmp_path / "it.yaml"
    path.write_text(f"{RECIPE}task: {{name: summarization, language: no}}\n", encoding="utf-8")
    recipe = read_recipe(path, Recipe)
    assert recipe.task == Summarization(language="no")
    path.write_text(recipe.yaml(), encoding="utf-8")
    assert read_recipe(path, Recipe) == recipe
    path.write_text(f"{RECIPE}", encoding="utf-8")
    assert read_recipe(path, Recipe, ["task.language=no"]).task.language == "no"
    path.write_text("data: {train: x.jsonl}\ntask: {name: summarization, language: no}\n", encoding="utf-8")
    assert read_recipe(path, TrainRecipe).task.language == "no"
    given: Any = typed(tasks, "summarization", settings(["language=no"]))
    assert given.language == "no"


def test_true_and_false_may_still_be_such_words() -> None:
    content = read_yaml(f"{RECIPE}merge: {{method: linear, paper: yes}}\ncontroller: {{name: grasp, paper: off}}")
    recipe = parse_recipe(content, Recipe)
    assert recipe.merge.paper is True
    assert getattr(recipe.controller, "paper") is False  # noqa: B009 (a field of this controller)


def test_a_number_where_a_text_is_meant_says_how_to_write_it() -> None:
    with pytest.raises(InputError, match=r"name: input should be a valid string \(got 1.1\). Write it in quotes."):
        parse_recipe(read_yaml(f"{RECIPE}name: 1.10"), Recipe)
