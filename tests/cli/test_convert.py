"""`pomona convert`, and the ways to it from what other verbs refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from tests.adapters.builders import peft_config, peft_tensors, write_folder
from tests.adapters.convert.models import new_model, peft_adapter, saved
from tests.adapters.convert.test_mlx import mlx_folder, small
from typer.testing import CliRunner

from pomona.adapters import read_adapter
from pomona.cli.convert import convert
from pomona.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
app = typer.Typer()
app.command()(convert)
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def dora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It names its base by the folder."""
    folder = tmp_path_factory.mktemp("models")
    peft_adapter(saved(new_model(), folder / "base"), folder / "dora", use_dora=True)
    return folder / "dora"


def test_dora_takes_the_base_that_it_names(dora: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = RUNNER.invoke(app, [str(dora), "--rank", "4", "-o", str(out), "--json"])
    assert result.exit_code == 0, result.output
    done = json.loads(result.stdout)
    assert (done["kind"], done["modules"], done["rank"], done["output"]) == ("DoRA", 4, 4, str(out))
    assert 0 < done["approximation"]["error"] <= done["approximation"]["worst_error"] < 1
    assert done["approximation"]["worst_module"] in read_adapter(out)
    assert read_adapter(out).base_model == str(dora.parent / "base")
    provenance = json.loads((out / "pomona.json").read_text())
    assert (provenance["method"], provenance["from"]) == ("convert", "DoRA")
    assert provenance["error"] == done["approximation"]["error"]


def test_lines_for_people(dora: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = RUNNER.invoke(app, [str(dora), "--rank", "4", "-o", str(out)])
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first == f"DoRA: 4 modules of rank at most 4, in {out}"
    assert second.startswith("The factors lose ")
    assert "% of the update; at worst " in second
    assert result.stderr.startswith("warning: the factors lose ")


def test_a_whole_model_says_what_it_leaves_out(dora: Path, tmp_path: Path) -> None:
    base, model = dora.parent / "base", new_model()
    model.get_parameter("model.layers.1.mlp.up_proj.weight").data[0] += 1
    model.get_parameter("model.norm.weight").data.mul_(2)
    folder, out = saved(model, tmp_path / "tuned"), tmp_path / "out"
    command = [str(folder), "--base", str(base), "--max-error", "0.01", "-o", str(out)]
    refused = RUNNER.invoke(app, command)
    assert isinstance(refused.exception, InputError)
    assert "model.norm.weight (by 1e+02 %)" in str(refused.exception)
    result = RUNNER.invoke(app, [*command, "--drop", "other"])
    assert result.exit_code == 0, result.output
    assert "warning: 1 changed tensors are left out: model.norm.weight (by 100%)" in result.stderr
    assert result.stdout.splitlines()[0] == f"whole model: 1 module of rank at most 1, in {out}"


def test_an_mlx_adapter_with_another_name_for_its_base(tmp_path: Path) -> None:
    folder = mlx_folder(tmp_path / "mlx", small(), lora_parameters={"rank": 2, "scale": 1.5}, model="mlx-community/small-4bit")
    out = tmp_path / "out"
    result = RUNNER.invoke(app, [str(folder), "--base", "owner/small", "--dtype", "bfloat16", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [f"mlx-lm LoRA: 1 module of rank 2, in {out}", "Values are rounded to bfloat16"]
    written = read_adapter(out)
    assert written.base_model == "owner/small"
    assert written[written.modules[0]].A.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--to", "gguf"], "--to: cannot be made (got 'gguf')"),
        (["--rank", "4", "--base", "./nowhere"], "--base: no such model folder"),
        (["--rank", "4", "--base", "owner/name"], "--base: the base model's folder is needed: a DoRA is a difference"),
        (["--rank", "4", "--dtype", "int8"], "--dtype: cannot be written"),
        (["--rank", "4", "--base", "{dora}"], "has no config.json"),
    ],
)
def test_wrong_options(options: list[str], said: str, dora: Path, tmp_path: Path) -> None:
    given = [option.format(dora=dora) for option in options]
    result = RUNNER.invoke(app, [str(dora), "-o", str(tmp_path / "out"), *given])
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "no such file or folder"),
        (("readme.md",), "holds neither an adapter nor a model"),
        (("adapter_model.safetensors",), "has adapter_model.safetensors and no adapter_config.json"),
        (("pytorch_model.bin", "config.json"), "is a whole model in pickles"),
        (("one/adapter_config.json", "two/adapter_config.json"), "holds adapters in folders: one, two"),
        (("model.safetensors",), "has no config.json"),
    ],
)
def test_inputs_that_are_nothing(files: tuple[str, ...], said: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("{}")
    result = RUNNER.invoke(app, [str(tmp_path / "in"), "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)


def test_other_kinds_of_peft_are_shown_the_way(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", config=peft_config(peft_type="LOHA"))
    result = RUNNER.invoke(app, [str(folder), "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, InputError)
    assert "peft_type: is not LoRA" in str(result.exception)
    assert "merge_and_unload" in str(result.exception)


def test_a_plain_adapter_is_written_with_another_dtype_or_rank(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", peft_tensors())
    result = RUNNER.invoke(app, [str(folder), "--rank", "1", "-o", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    done = json.loads(result.stdout)
    assert (done["kind"], done["rank"]) == ("LoRA", 1)
    assert done["approximation"]["error"] > 0.1
    refused = RUNNER.invoke(app, [str(folder), "--max-error", "0.1", "-o", str(tmp_path / "out")])
    assert isinstance(refused.exception, InputError)


@pytest.mark.parametrize(
    "changes", [{"use_dora": True}, {"peft_type": "LOHA"}, {"lora_bias": True}, {"bias": "all"}, {"init_lora_weights": "pissa"}]
)
def test_what_other_verbs_refuse_is_shown_the_way(changes: dict[str, object], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", config=peft_config(**changes))
    with pytest.raises(InputError, match=r"pomona convert INPUT --base BASE --rank R --output DIR"):
        read_adapter(folder)
