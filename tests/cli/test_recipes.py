"""`pomona recipes`: list, print and write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.end_to_end.setting import call

from pomona.recipes import packaged, read_packaged


def test_the_list_names_each_recipe_under_its_verb(tmp_path: Path) -> None:
    said = call(tmp_path, "recipes").out
    adapt, experiment, train = (said.index(f"for `pomona {verb}`:") for verb in ("adapt", "experiment", "train-adapter"))
    assert adapt < said.index("  grasp-lora ") < min(place for place in (experiment, train) if place > adapt)
    assert "experiments/ratio" in said[experiment:]
    listed = json.loads(call(tmp_path, "recipes", "--json").out)
    assert listed.keys() == {one.name for one in packaged()}
    assert listed["demo-sources/torch"]["verb"] == "train-adapter"


def test_a_recipe_is_printed_or_written_to_a_new_file(tmp_path: Path) -> None:
    assert call(tmp_path, "recipes", "single-pass").out == read_packaged("single-pass")
    done = call(tmp_path, "recipes", "experiments/ratio", "--output", "ratio.yaml")
    assert (done.code, done.out) == (0, "ratio.yaml\n")
    assert (tmp_path / "ratio.yaml").read_text(encoding="utf-8") == read_packaged("experiments/ratio")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["single-pas"], "Did you mean 'single-pass'?"),
        (["single-pass", "--output", "there.yaml"], "--output: exists already"),
        (["single-pass", "--output", "none/x.yaml"], "--output: cannot be written"),
        (["--output", "x.yaml"], "--output: writes one recipe, and none is named"),
    ],
)
def test_wrong_input(tmp_path: Path, arguments: list[str], part: str) -> None:
    (tmp_path / "there.yaml").write_text("mine")
    done = call(tmp_path, "recipes", *arguments)
    assert done.code == 2
    assert part in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert (tmp_path / "there.yaml").read_text() == "mine"
