"""A run with one source: nothing to merge, and everything else as ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.setting import call, make_setting, recipe, write_recipe

from pomona.adapters import read_adapter

ALONE: dict[str, Any] = {
    "sources": [{"name": "alpha", "adapter": "adapters/alpha"}],
    "tuning": {"epochs": 2, "batch_size": 4, "learning_rate": 0.01},
}
EQUAL = ("concat", "linear", "svd", "tsv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_setting(tmp_path_factory.mktemp("one_source"))


def run(folder: Path, **changes: Any) -> dict[str, Any]:
    write_recipe(folder / "one.yaml", recipe(**ALONE | changes))
    done = call(folder, "adapt", "one.yaml", "--output", changes["name"], "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_every_baseline_is_made_and_equal_ones_are_named(folder: Path) -> None:
    baselines = ["zero_shot", "target_lora", "merge_finetune", *EQUAL, "ties", "iso_c", "lorahub"]
    record = run(folder, name="baselines", evaluation={"baselines": baselines, "draws": 100})
    loss = {system: scores["loss"]["value"] for system, scores in record["metrics"].items()}
    assert set(loss) == {"pomona", *baselines}
    for method in EQUAL:
        assert loss[method] == pytest.approx(loss["concat"], abs=1e-4)
    assert loss["ties"] != pytest.approx(loss["concat"], abs=1e-4)
    assert loss["iso_c"] != pytest.approx(loss["concat"], abs=1e-4)
    said = "there is one source, which concat, linear, svd and tsv leave as it is: these baselines are equal"
    assert said in record["warnings"]


@pytest.mark.parametrize(
    ("method", "controller"),
    [
        ("linear", {"name": "grid", "prune_ratios": [0.2, 0.5]}),
        ("svd", {"name": "layerwise", "interval_steps": 3, "groups": 2}),
        ("ties", {"name": "tpe", "trials": 2, "startup_trials": 1}),
        ("concat", {"name": "fixed", "prune_ratio": 0.3}),
    ],
    ids=lambda one: one if isinstance(one, str) else one["name"],
)
def test_it_is_trained_and_pruned_by_every_method_and_controller(folder: Path, method: str, controller: dict[str, Any]) -> None:
    name = f"{method}-{controller['name']}"
    record = run(folder, name=name, merge={"method": method}, controller=controller, evaluation={"baselines": [], "draws": 100})
    assert not [one for one in record["warnings"] if "one source" in one]
    source, found = read_adapter(folder / "adapters" / "alpha"), read_adapter(folder / name / "adapter")
    assert found.modules == source.modules
    assert found.fingerprint() != source.fingerprint()
    assert 0 < record["prune_ratio"] < 1
