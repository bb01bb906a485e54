"""A run on a base that is quantised while it is loaded: its test losses are those of the exported adapter beside the codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.setting import call, make_setting, recipe, write_recipe

from pomona.adapters import read_adapter
from pomona.backbone.attach import attached
from pomona.backbone.batches import encode
from pomona.backbone.load import load_backbone
from pomona.backbone.loss import example_losses
from pomona.runs.examples import read_splits
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe
from pomona.runs.recipe_model import loading

pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_setting(tmp_path_factory.mktemp("quantised"))


@pytest.mark.parametrize(
    "settings",
    [
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        {"load_in_8bit": True, "llm_int8_threshold": 0},
    ],
    ids=["4-bit", "8-bit"],
)
def test_the_scores_are_those_of_the_adapter(folder: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    changes: dict[str, Any] = {"dtype": "bfloat16", "quantization_config": settings}
    small = {"epochs": 1, "batch_size": 4, "learning_rate": 0.01}
    pruned = {"name": "fixed", "prune_ratio": 0.3}
    evaluation = {"baselines": ["zero_shot"], "draws": 100}
    write_recipe(folder / "run.yaml", recipe(tuning=small, controller=pruned, evaluation=evaluation, **changes))
    done = call(folder, "adapt", "run.yaml", "--output", str(next(iter(settings))), "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    given = read_recipe(folder / "run.yaml", Recipe)
    assert record["recipe"]["quantization_config"] == given.resolved()["quantization_config"]
    backbone, test = load_backbone(*loading(given)), read_splits(given).test
    encoded, _ = encode(test, backbone.tokenizer, given.tuning.max_tokens)
    bare = example_losses(backbone, encoded, 8)
    with attached(backbone, [read_adapter(folder / next(iter(settings)) / "adapter")]):
        beside = example_losses(backbone, encoded, 8)
    assert record["metrics"]["pomona"]["loss"]["value"] == pytest.approx(sum(beside) / len(beside), rel=1e-6)
    assert record["metrics"]["zero_shot"]["loss"]["value"] == pytest.approx(sum(bare) / len(bare), rel=1e-6)
    assert sum(beside) < sum(bare)


def test_an_unknown_setting_is_refused_with_those_that_are_known(folder: Path) -> None:
    write_recipe(folder / "wrong.yaml", recipe(quantization_config={"load_in_4bit": True, "bnb_4bit_type": "nf4"}))
    done = call(folder, "check", "wrong.yaml")
    assert done.code == 2
    assert done.out.startswith("error: wrong.yaml: quantization_config.bnb_4bit_type: unknown key. Did you mean")
