from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import typer
from tests.adapters.builders import Q0, peft_config, peft_tensors, write_folder
from tests.tiny import save_tiny_model, tiny_adapter, tiny_backbone
from typer.testing import CliRunner

from pomona.adapters import write_adapter
from pomona.adapters.base_identity import identity_of_folder
from pomona.cli.check import check
from pomona.errors import InputError

app = typer.Typer()
app.command()(check)
RUNNER = CliRunner()
CONFIG = peft_config(target_modules=["q_proj", "v_proj"])


def test_good_adapters(tmp_path: Path) -> None:
    folders = [str(write_folder(tmp_path / name, config=CONFIG)) for name in "ab"]
    result = RUNNER.invoke(app, folders)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"ok: {folder}: 4 modules, all values finite, trained on base" for folder in folders]


def test_an_error_is_exit_two_and_every_finding_is_told(tmp_path: Path) -> None:
    good, bad = write_folder(tmp_path / "good", config=CONFIG), write_folder(tmp_path / "bad", config=peft_config(use_dora=True))
    result = RUNNER.invoke(app, [str(bad), str(good)])
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"error: {bad}/adapter_config.json: use_dora: ")
    assert lines[1].startswith(f"ok: {good}: ")
    told = json.loads(RUNNER.invoke(app, [str(bad), str(good), "--json"]).stdout)
    assert told["ok"] is False
    assert [finding["level"] for finding in told["findings"]] == ["error", "ok"]


def test_base_and_programs(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", peft_tensors({Q0: 600}), peft_config(r=600, target_modules=["q_proj"]))
    alone = RUNNER.invoke(app, [str(folder)])
    assert alone.exit_code == 0
    assert [line.partition(":")[0] for line in alone.stdout.splitlines()] == ["ok", "warning"]
    asked = RUNNER.invoke(app, [str(folder), "--base", str(tmp_path / "none"), "--for", "vllm", "--for", "peft"])
    assert asked.exit_code == 2
    assert asked.stdout.splitlines() == [
        f"ok: {folder}: 1 modules, all values finite, trained on base",
        f"error: {tmp_path / 'none'}: no such folder. Give the base model's folder, with config.json and its safetensors files.",
        f"error: {folder}: vllm will not load it: it has rank 600, and vLLM takes at most 512. Give --rank 512.",
        f"ok: {folder}: peft will load it, exported with --for peft",
    ]


@pytest.mark.parametrize("base", ["./nowhere", "no/where", "../no/where", "no--where/x", "a/b/c", "~/nowhere"])
def test_a_base_that_is_nowhere(base: str, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, [str(write_folder(tmp_path / "a", config=CONFIG)), "--base", base])
    assert result.exit_code == 2
    assert f"error: {Path(base)}: no such folder." in result.stdout


def test_a_recipe_alone_has_no_base_or_program_of_its_own(tmp_path: Path) -> None:
    for option in (("--base", "model"), ("--for", "peft")):
        result = RUNNER.invoke(app, [str(tmp_path / "recipe.yaml"), *option])
        assert isinstance(result.exception, InputError)
        assert str(result.exception).startswith(f"{option[0]}: is about adapters, and only recipes are given.")


def test_a_base_that_the_adapter_was_not_trained_on(tmp_path: Path) -> None:
    """The shapes fit: only the names, or what Pomona stored of the base, tell."""
    model = save_tiny_model(tmp_path / "model")
    made = tiny_adapter(tiny_backbone())
    identity = identity_of_folder(model)
    assert identity is not None
    folders = {
        "theirs": dataclasses.replace(made, base_model="org/theirs"),
        "same": dataclasses.replace(made, base_model="elsewhere/Model"),
        "stored": dataclasses.replace(made, base_model="org/moved", provenance={"base": identity.as_json()}),
        "tuned": dataclasses.replace(
            made, base_model="model", provenance={"base": dataclasses.replace(identity, weights="another").as_json()}
        ),
    }
    for name, adapter in folders.items():
        write_adapter(adapter, tmp_path / name)
    result = RUNNER.invoke(app, [*(str(tmp_path / name) for name in folders), "--base", str(model), "--json"])
    assert result.exit_code == 0
    told = [one["message"] for one in json.loads(result.stdout)["findings"] if "but the model is" in one["message"]]
    assert told == [
        f"{tmp_path / 'theirs'} was trained on 'org/theirs', but the model is {str(model)!r}",
        f"{tmp_path / 'tuned'} was trained on 'model', but the model is {str(model)!r}; the two differ in weights",
    ]
