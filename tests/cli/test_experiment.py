"""`pomona experiment` on the command line: what its options take, and what it says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.end_to_end.setting import call, make_setting, recipe, write_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("verb"))
    systems = {"bare": {"baseline": "zero_shot"}, "p30": {"controller": {"name": "fixed", "prune_ratio": 0.3}}}
    content = {"name": "verb", "recipe": "small.yaml", "seeds": [0, 1], "settings": {"a": {}, "b": {"tuning.epochs": 1}}}
    write_recipe(folder / "exp.yaml", content | {"systems": systems})
    write_recipe(folder / "small.yaml", recipe(evaluation={"baselines": [], "draws": 200}))
    return folder


def test_dry_run_lists_the_cells_and_writes_nothing(folder: Path) -> None:
    done = call(folder, "experiment", "exp.yaml", "--dry-run", "--output", "elsewhere")
    assert done.code == 0, done.err
    told = done.out.splitlines()
    assert told[:8] == [f"new          elsewhere/{s}/{cell}" for s in "ab" for cell in ("bare-0", "p30-0", "bare-1", "p30-1")]
    table = next(place for place, line in enumerate(told) if line.startswith("training "))
    assert told[8:table]
    assert all(line.startswith("warning: ") for line in told[8:table])
    assert len(set(told)) == len(told)
    steps = {line.split()[0]: int(line.split()[2]) for line in told[table + 1 :] if ": pomona " in line}
    assert steps == {"a/p30-0:": 18, "a/p30-1:": 18, "b/p30-0:": 6, "b/p30-1:": 6}
    assert not (folder / "elsewhere").exists()


def test_a_part_of_the_cells_as_json(folder: Path) -> None:
    done = call(folder, "experiment", "exp.yaml", "--dry-run", "--json", "--systems", "p30", "--settings", "b, a", "--seeds", "1")
    assert done.code == 0, done.err
    assert json.loads(done.out)["cells"] == {"a/p30-1": "new", "b/p30-1": "new"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--systems", "p31"), "error: --systems: is not in the experiment (got 'p31'). Did you mean 'p30'? Known: bare, p30."),
        (("--settings", "c"), "error: --settings: is not in the experiment (got 'c'). Known: a, b."),
        (("--seeds", "2"), "error: --seeds: is not in the experiment (got 2). Known: 0, 1."),
        (("--seeds", "one"), "error: --seeds: whole numbers are expected (got 'one'). Write for example 0,1."),
        (("--systems", ""), "error: --systems: is not in the experiment (got '')."),
        (("--engine", "dask"), "error: --engine: no such engine (got 'dask'). Use local or ray."),
        (("--workers", "0"), "error: --workers: at least one worker is needed (got 0). Give 1 or more."),
        (("--sets", "x"), "error: No such option: --sets"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = call(folder, "experiment", "exp.yaml", "--dry-run", *arguments)
    assert done.code == 2
    assert done.out == ""
    assert len(done.errors) == 1
    assert done.errors[0].startswith(message), done.errors


def test_a_file_that_is_none(folder: Path) -> None:
    done = call(folder, "experiment", "nowhere.yaml")
    assert done.code == 2
    assert done.errors[0].startswith("error: nowhere.yaml: the recipe cannot be read: No such file or directory")


def test_a_recipe_is_no_experiment(folder: Path) -> None:
    done = call(folder, "experiment", "small.yaml")
    assert done.code == 2
    assert done.errors == ["error: small.yaml: recipe: is missing. Add it to the recipe."]


def test_a_folder_that_holds_something_else_is_left_alone(folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "adapters").rglob("*") if path.is_file()}
    done = call(folder, "experiment", "exp.yaml", "--output", "adapters")
    assert done.code == 2
    assert done.errors[0].startswith("error: adapters: already exists. Give another --output")
    assert {path: path.read_bytes() for path in (folder / "adapters").rglob("*") if path.is_file()} == before
