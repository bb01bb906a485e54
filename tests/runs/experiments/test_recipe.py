"""Experiment files: what their overrides mean, and what is wrong with any cell is said before one is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pomona.control import Bayes, Fixed
from pomona.errors import InputError
from pomona.importance import Magnitude
from pomona.runs.experiments.recipe import Cell, read_experiment, select
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted((ROOT / "src" / "pomona" / "recipes" / "experiments").glob("*.yaml"))
OWN_DATA = {
    "pruning-scitldr-title",
    "pruning-csl-title",
    "grasp-xquad-ar",
    "grasp-xquad-zh",
    "few-shot",
    "few-shot-merging",
    "demo",
}
GRASP = {"grasp-scitldr-title", "grasp-micro-dev", "grasp-ablation", "grasp-published"}
BASE: dict[str, Any] = {
    "name": "base",
    "seed": 9,
    "data": {"train": "rows.jsonl", "columns": {"document": "text"}},
    "sources": [{"name": "one", "adapter": "adapters/one"}, {"name": "two", "adapter": "adapters/two", "weight": 0.5}],
    "tuning": {"epochs": 7, "batch_size": 3},
    "evaluation": {"baselines": ["zero_shot", "svd"], "metrics": ["chrf"], "draws": 300},
}
SYSTEMS: dict[str, Any] = {"bare": {"baseline": "zero_shot"}, "p30": {"controller": {"name": "fixed", "prune_ratio": 0.3}}}


def read(folder: Path, **changes: Any) -> list[Cell]:
    (folder / "exp.yaml").write_text(yaml.safe_dump({"recipe": BASE, "systems": SYSTEMS} | changes, sort_keys=False))
    return read_experiment(folder / "exp.yaml")[1]


def one(folder: Path, **overrides: Any) -> Recipe:
    (cell,) = read(folder, seeds=[0], systems={"it": overrides})
    return cell.recipe


def refused(folder: Path, **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, **changes)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder}/")


def test_cells_go_through_settings_then_seeds_then_systems(tmp_path: Path) -> None:
    cells = read(tmp_path, name="mine", seeds=[4, 2], settings={"short": {"tuning.epochs": 1}, "long": {}})
    assert [cell.path for cell in cells] == [
        "short/bare-4", "short/p30-4", "short/bare-2", "short/p30-2", "long/bare-4", "long/p30-4", "long/bare-2", "long/p30-2",
    ]  # fmt: skip
    assert [cell.recipe.name for cell in cells] == [f"mine/{cell.path}" for cell in cells]
    assert [cell.recipe.seed for cell in cells] == [cell.seed for cell in cells] == [4, 4, 2, 2] * 2
    assert [cell.recipe.tuning.epochs for cell in cells] == [1] * 4 + [7] * 4
    assert [cell.only for cell in cells] == ["zero_shot", None] * 4
    assert [cell.recipe.evaluation.baselines for cell in cells] == [("zero_shot",), ()] * 4
    assert [cell.setting for cell in cells] == ["short"] * 4 + ["long"] * 4


def test_one_setting_has_no_folder_of_its_own(tmp_path: Path) -> None:
    for settings in ({}, {"only": {"tuning.epochs": 2}}):
        assert [cell.path for cell in read(tmp_path, settings=settings, seeds=[0])] == ["bare-0", "p30-0"]


def test_a_dotted_key_leaves_its_neighbours_and_a_mapping_takes_the_place_of_all(tmp_path: Path) -> None:
    dotted = one(tmp_path, **{"tuning.epochs": 2, "data.columns.document": "body", "sources.1.weight": -1})
    assert (dotted.tuning.epochs, dotted.tuning.batch_size) == (2, 3)
    assert dotted.data.columns == {"document": "body"}
    assert [source.weight for source in dotted.sources] == [1.0, -1.0]
    whole = one(tmp_path, tuning={"epochs": 2}, data={"train": "other.jsonl"}, sources=[{"name": "three", "adapter": "x"}])
    assert (whole.tuning.epochs, whole.tuning.batch_size) == (2, 8)
    assert whole.data.columns == {}
    assert [source.name for source in whole.sources] == ["three"]


def test_a_component_is_replaced_whole_or_one_value_of_it_changed(tmp_path: Path) -> None:
    assert one(tmp_path, controller={"name": "fixed", "prune_ratio": 0}).controller == Fixed(0.0)
    assert one(tmp_path, **{"controller.candidates": 5}).controller == Bayes(candidates=5)
    assert one(tmp_path, **{"pruning.metric": "magnitude"}).pruning.metric == Magnitude()


def test_a_system_comes_after_its_setting(tmp_path: Path) -> None:
    settings = {"s": {"tuning": {"epochs": 2, "batch_size": 5}}}
    (cell,) = read(tmp_path, seeds=[0], settings=settings, systems={"it": {"tuning.epochs": 3}})
    assert (cell.recipe.tuning.epochs, cell.recipe.tuning.batch_size) == (3, 5)


@pytest.mark.parametrize("value", ["1e-3", "no", "null", "0123", "2024-01-01", "a: b", "-", "\x85 \u2028 日本 🦊", "x=y"])
def test_texts_come_through_as_they_are(tmp_path: Path, value: str) -> None:
    """An override takes the same way as `--set`, and must not be read as something else on it."""
    assert one(tmp_path, **{"data.columns": {"document": value}}).data.columns == {"document": value}
    assert one(tmp_path, **{"data.train": value}).data.train == value


@pytest.mark.parametrize("value", [1e-05, 3, None, True, [1, "x"], {"a": None}], ids=str)
def test_what_is_no_text_is_none_on_the_way_either(tmp_path: Path, value: object) -> None:
    with pytest.raises(InputError, match=r"systems\.it: data\.columns\.document: input should be a valid string"):
        one(tmp_path, **{"data.columns": {"document": value}})


def test_numbers_and_null_come_through(tmp_path: Path) -> None:
    given = one(tmp_path, **{"tuning.learning_rate": 1e-05, "tuning.gradient_clip": None, "splits.train": 12})
    assert (given.tuning.learning_rate, given.tuning.gradient_clip, given.splits.train) == (1e-05, None, 12)


def test_a_baseline_may_have_overrides(tmp_path: Path) -> None:
    (cell,) = read(tmp_path, seeds=[0], systems={"small": {"baseline": "target_lora", "lora.rank": 2}})
    assert (cell.only, cell.recipe.lora.rank, cell.recipe.evaluation.baselines) == ("target_lora", 2, ("target_lora",))


def test_metrics_and_draws_are_the_experiment_s_for_every_cell(tmp_path: Path) -> None:
    for cell in read(tmp_path, metrics=["rouge_l", {"name": "bleu", "tokenizer": "char"}], draws=150):
        assert list(cell.recipe.metrics) == ["rouge_l", "bleu"]
        assert cell.recipe.evaluation.draws == 150
    for cell in read(tmp_path):
        assert list(cell.recipe.metrics) == ["chrf"]
        assert cell.recipe.evaluation.draws == 300


def test_the_recipe_may_be_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    beside = read(tmp_path, recipe="base.yaml")
    assert beside == read(tmp_path / "below", recipe="../base.yaml") == read(tmp_path)


def test_what_is_written_reads_as_the_same_experiment(tmp_path: Path) -> None:
    cells = read(tmp_path, seeds=[3, 1], settings={"a": {"tuning.epochs": 2}, "b": {}}, against="bare", draws=200)
    experiment, _ = read_experiment(tmp_path / "exp.yaml")
    (tmp_path / "again.yaml").write_text(experiment.yaml())
    again, its_cells = read_experiment(tmp_path / "again.yaml")
    assert again == experiment
    assert its_cells == cells


def test_select(tmp_path: Path) -> None:
    cells = read(tmp_path, settings={"a": {}, "b": {}})
    assert select(cells) == cells
    chosen = select(cells, systems=["p30"], settings=["b"], seeds=[0, 2])
    assert [cell.path for cell in chosen] == ["b/p30-0", "b/p30-2"]
    for wrong, message in (
        ({"systems": ["p3"]}, "systems: is not in the experiment (got 'p3'). Did you mean 'p30'? Known: bare, p30."),
        ({"settings": ["c"]}, "settings: is not in the experiment (got 'c'). Known: a, b."),
        ({"seeds": [7]}, "seeds: is not in the experiment (got 7). Known: 0, 1, 2."),
    ):
        with pytest.raises(InputError) as caught:
            select(cells, **wrong)  # pyright: ignore[reportArgumentType]
        assert str(caught.value) == message


WRONG = [
    ({"sistems": {}}, "exp.yaml: sistems: unknown key. Did you mean 'systems'?"),
    ({"systems": {}}, "exp.yaml: systems: dictionary should have at least 1 item"),
    ({"systems": {"a": None}}, "exp.yaml: systems.a: input should be a valid dictionary"),
    ({"systems": {"a/b": {}}}, "exp.yaml: systems.a/b.[key]: 'a/b' names a folder: use letters"),
    ({"systems": {"..": {}}}, "exp.yaml: systems....[key]: '..' names a folder"),
    ({"systems": {30: {}}}, "exp.yaml: systems.30.[key]: input should be a valid string"),
    ({"settings": {"table.md": {}, "b": {}}}, "exp.yaml: settings.table.md.[key]: 'table.md' names a folder"),
    ({"name": "../up"}, "exp.yaml: name: '../up' names a folder"),
    ({"seeds": []}, "exp.yaml: seeds: tuple should have at least 1 item"),
    ({"seeds": [0, -1]}, "exp.yaml: seeds.1: input should be greater than or equal to 0"),
    ({"seeds": [1, 1]}, "exp.yaml: seeds: a seed is there twice (got [1, 1])"),
    ({"seeds": 3}, "exp.yaml: seeds: input should be a valid tuple"),
    ({"draws": 5}, "exp.yaml: draws: input should be greater than or equal to 100"),
    ({"metrics": ["rouge_x"]}, "exp.yaml: no such metric (got 'rouge_x'). Did you mean 'rouge_l'?"),
    ({"against": "p3"}, "exp.yaml: against: no such system (got 'p3'). Did you mean 'p30'?"),
    ({"recipe": 3}, "exp.yaml: recipe: give the file of a recipe, or the recipe itself (got 3)"),
    ({"recipe": "nowhere.yaml"}, "nowhere.yaml: the recipe cannot be read: No such file or directory"),
    ({"recipe": {"name": "x"}}, "exp.yaml: recipe: data: is missing. Add it to the recipe."),
    ({"systems": {"a": {"baseline": "zeroshot"}}}, "exp.yaml: no such baseline (got 'zeroshot'). Did you mean 'zero_shot'?"),
    ({"systems": {"a": {"baseline": 3}}}, "exp.yaml: systems.a.baseline: the name of a baseline is expected (got 3)"),
    ({"settings": {"a": {"baseline": "svd"}}}, "exp.yaml: settings.a: baseline: unknown key"),
    ({"systems": {"a": {"seed": 3}}}, "exp.yaml: systems.a.seed: cannot be overridden: the experiment says it itself"),
    ({"systems": {"a": {"evaluation.baselines": []}}}, "exp.yaml: systems.a.evaluation.baselines: cannot be overridden"),
    ({"systems": {"a": {"tuning.epochs": 2, "tuning": {}}}}, "exp.yaml: systems.a.tuning.epochs: stands within 'tuning'"),
    ({"systems": {"a": {"tuning=2": 2}}}, "exp.yaml: systems.a.tuning=2: is no key of a recipe"),
    ({"systems": {"a": {".epochs": 2}}}, "exp.yaml: systems.a..epochs: is no key of a recipe"),
    ({"systems": {"a": {"tunin.epochs": 2}}}, "exp.yaml: systems.a: tunin: unknown key. Did you mean 'tuning'?"),
    ({"systems": {"a": {"tuning.epoch": 2}}}, "exp.yaml: systems.a: tuning.epoch: unknown key. Did you mean 'epochs'?"),
    ({"systems": {"a": {"tuning.epochs": 0}}}, "exp.yaml: systems.a: tuning.epochs: must be at least 1 (got 0)"),
    ({"systems": {"a": {"sources.5.weight": 1}}}, "exp.yaml: systems.a: '5' counts into a list of 2"),
    ({"systems": {"a": {"controller.p": 1}}}, "exp.yaml: systems.a: controller 'bayes' has no parameter 'p'"),
    ({"settings": {"x": {"dtype": "int3"}}}, "exp.yaml: settings.x: unknown dtype 'int3'"),
    (
        {"settings": {"x": {}, "y": {}}, "systems": {"a": {}, "b": {"controller.prune_ratio": 2}}},
        "exp.yaml: systems.b in settings.x: controller 'bayes' has no parameter 'prune_ratio'",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=lambda one: str(one)[:60])
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert refused(tmp_path, **changes).startswith(message)


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n", "\x00", "systems: {a: {}}\n"])
def test_files_that_are_not_experiments(tmp_path: Path, text: str) -> None:
    (tmp_path / "exp.yaml").write_text(text)
    with pytest.raises(InputError, match=r"exp\.yaml"):
        read_experiment(tmp_path / "exp.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_experiment_of_the_recipes_is_sound(path: Path) -> None:
    experiment, cells = read_experiment(path)
    assert experiment.name == path.stem
    assert experiment.against in experiment.systems
    assert len(experiment.seeds) >= 3
    if path.stem not in OWN_DATA:
        base = read_recipe(path.parent / "../adaptive-lora-merge.yaml", Recipe)
        assert all(cell.recipe.data == base.data for cell in cells)
    # No two systems of a setting are the same run.
    shapes = [(cell.setting, cell.only, cell.recipe.model_copy(update={"name": ""}).model_dump_json()) for cell in cells]
    assert len(set(shapes)) == len(shapes)


def test_the_experiments_of_the_recipes_are_there() -> None:
    assert {path.stem for path in RECIPES} == {
        "ratio", "granularity", "reset", "importance", "target-lora", "examples", "paper", *OWN_DATA, *GRASP
    }  # fmt: skip


def test_the_experiments_of_the_documents_are_sound(tmp_path: Path) -> None:
    (tmp_path / "titles.yaml").write_text(yaml.safe_dump(BASE))
    text = (ROOT / "docs/how-to/experiments.md").read_text(encoding="utf-8")
    blocks = re.findall(r'^```yaml title="[^"]+"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    assert blocks
    for place, block in enumerate(blocks):
        (tmp_path / f"{place}.yaml").write_text(block)
        assert read_experiment(tmp_path / f"{place}.yaml")[1]
