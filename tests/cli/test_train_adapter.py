"""`pomona train-adapter --from`: training that goes on from an adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from tests.end_to_end.setting import call, make_setting, write_recipe

from pomona.adapters import read_adapter, write_adapter

FROM = ("--from", "adapters/beta", "--output", "out", "--force")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe without `lora`, beside those of every setting."""
    folder = make_setting(tmp_path_factory.mktemp("train_adapter"))
    content = yaml.safe_load((folder / "source.yaml").read_text())
    write_recipe(folder / "on.yaml", {key: value for key, value in content.items() if key != "lora"})
    return folder


def test_it_begins_with_the_adapter_s_effect(folder: Path) -> None:
    """Steps too small to be seen leave the modules, ranks and updates of the adapter."""
    done = call(folder, "train-adapter", "on.yaml", *FROM, "--set", "tuning.learning_rate=1e-30")
    assert done.code == 0, done.err
    start, found = read_adapter(folder / "adapters" / "beta"), read_adapter(folder / "out")
    assert found.modules == start.modules
    for module in start:
        assert found[module].rank == start[module].rank
        torch.testing.assert_close(found.delta(module), start.delta(module), rtol=0, atol=1e-6)


def test_it_learns_on(folder: Path) -> None:
    assert call(folder, "train-adapter", "on.yaml", *FROM, "--set", "tuning.epochs=4").code == 0
    data = ("--data", "source.jsonl", "--model", "model", "--set", "max_new_tokens=1", "--metric", "chrf")
    told = call(folder, "evaluate", *data, "-a", "adapters/beta", "-a", "out", "--json")
    loss = {system: scores["loss"]["value"] for system, scores in json.loads(told.out)["metrics"].items()}
    assert loss["out"] < loss["adapters/beta"] - 0.1


def test_a_shape_for_it_is_refused(folder: Path) -> None:
    for given in (("source.yaml",), ("on.yaml", "--set", "lora.rank=4")):
        done = call(folder, "train-adapter", *given, "--from", "adapters/beta", "--output", "none")
        assert done.code == 2
        assert done.errors == [
            "error: lora: has no effect: the training goes on from an adapter, which has its modules, ranks and scaling. "
            "Leave it out of the recipe, or leave out --from."
        ]
        assert not (folder / "none").exists()


def test_an_adapter_of_another_model_is_refused_or_warned_of(folder: Path) -> None:
    beta = read_adapter(folder / "adapters" / "beta")
    write_adapter(type(beta)({"model.layers.9.self_attn.q_proj": beta[beta.modules[0]]}), folder / "other")
    done = call(folder, "train-adapter", "on.yaml", "--from", "other", "--output", "none")
    assert done.code == 2
    assert "model.layers.9.self_attn.q_proj" in done.errors[0]
    write_adapter(type(beta)({module: beta[module] for module in beta}, "someone/else"), folder / "named")
    done = call(folder, "train-adapter", "on.yaml", "--from", "named", "--output", "out", "--force")
    assert done.code == 0
    assert [line for line in done.err.splitlines() if line.startswith("warning: ") and "someone/else" in line]
