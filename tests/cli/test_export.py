from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import typer
from gguf import GGUFReader
from safetensors.torch import load_file
from tests.adapters.export.tiny_models import build, update
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from pomona.adapters import Adapter, Factors, read_adapter, write_adapter
from pomona.cli.export import export
from pomona.errors import InputError

app = typer.Typer()
app.command()(export)
RUNNER = CliRunner()
Q0 = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def adapter() -> Adapter:
    return update(build("llama"), ("q_proj", "v_proj"))


@pytest.fixture
def folder(adapter: Adapter, tmp_path: Path) -> str:
    """The adapter names its base by the folder."""
    build("llama").save_pretrained(tmp_path / "base")
    write_adapter(replace(adapter, base_model=str(tmp_path / "base")), tmp_path / "a")
    return str(tmp_path / "a")


def test_for_vllm_with_a_lower_rank(folder: str, adapter: Adapter, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, [folder, "--for", "vllm", "--rank", "1", "-o", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    done = json.loads(result.stdout)
    assert (done["target"], done["modules"], done["rank"], done["max_lora_rank"]) == ("vllm", len(adapter), 1, 1)
    assert done["warnings"] == []
    lost = whole = 0.0
    written = read_adapter(tmp_path / "out")
    for module in adapter:
        lost += float((written.delta(module) - adapter.delta(module)).square().sum())
        whole += float(adapter.delta(module).square().sum())
    assert done["compression"]["rank"] == 1
    assert done["compression"]["error"] == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert done["compression"]["worst_error"] >= done["compression"]["error"] > 0


def test_lines_for_people(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = RUNNER.invoke(app, [folder, "--for", "vllm", "--rank", "1", "-o", str(out)])
    assert result.exit_code == 0, result.output
    first, lost, use = result.stdout.splitlines()
    assert first == f"4 modules of rank 1 for vllm, in {out}"
    assert lost.startswith("Compressing to rank 1 lost ")
    assert "% of the update; at worst " in lost
    assert use == f"Start vLLM with --enable-lora --max-lora-rank 1 --lora-modules NAME={out}"


def test_merged_into_the_base_that_the_adapter_names(folder: str, adapter: Adapter, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, [folder, "--for", "merged", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "Rounding to the base's dtype lost " in result.stdout
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "out"))
    torch.testing.assert_close(after[f"{Q0}.weight"], before[f"{Q0}.weight"] + adapter.delta(Q0))


def test_a_warning_goes_to_stderr(adapter: Adapter, folder: str, tmp_path: Path) -> None:
    build("llama").to(torch.bfloat16).save_pretrained(tmp_path / "half")  # pyright: ignore[reportArgumentType]
    write_adapter(replace(adapter, factors={Q0: replace(adapter[Q0], scaling=1e-3)}), tmp_path / "small")
    command = [str(tmp_path / "small"), "--for", "merged", "--base", str(tmp_path / "half"), "-o", str(tmp_path / "out")]
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("warning: rounding to the base's dtype loses ")


def test_for_llama_cpp_and_force(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "lora.gguf"
    command = [folder, "--for", "llama.cpp", "--dtype", "float16", "-o", str(out)]
    assert RUNNER.invoke(app, command).exit_code == 0
    assert {tensor.tensor_type.name for tensor in GGUFReader(out).tensors} == {"F16"}
    refused = RUNNER.invoke(app, command)
    assert isinstance(refused.exception, InputError)
    assert "already exists" in str(refused.exception)
    done = RUNNER.invoke(app, [*command, "--force", "--json"])
    assert json.loads(done.stdout)["architecture"] == "llama"


def test_the_embedded_model_by_its_names(adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model stands in for it; the real one is the same to this verb."""
    from pomona.backbone import embedded

    build("llama").save_pretrained(tmp_path / "base")
    asked: list[None] = []
    monkeypatch.setattr(embedded, "embedded_model", lambda: asked.append(None) or tmp_path / "base")
    write_adapter(replace(adapter, base_model=embedded.NAME), tmp_path / "a")
    for place, options in enumerate(([], ["--base", embedded.NAME], ["--base", "embedded"])):
        out = tmp_path / f"out{place}"
        assert RUNNER.invoke(app, [str(tmp_path / "a"), "--for", "merged", *options, "-o", str(out)]).exit_code == 0
    assert len(asked) == 3
    assert RUNNER.invoke(app, [str(tmp_path / "a"), "--for", "vllm", "-o", str(tmp_path / "v")]).exit_code == 0
    assert len(asked) == 3  # vLLM's rules do not need it converted


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--for", "ollama"], "Known: llama.cpp, merged, peft, vllm"),
        (["--for", "merged", "--dtype", "float16"], "--dtype: is not for --for merged"),
        (["--for", "peft", "--dtype", "int8"], "--dtype: cannot be written"),
        (["--for", "merged", "--base", "nowhere"], "--base: no such model folder or file (got 'nowhere')"),
    ],
)
def test_refusals(folder: str, options: list[str], part: str, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, [folder, *options, "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, InputError)
    assert part in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["merged", "llama.cpp"])
def test_a_base_that_is_not_here(target: str, adapter: Adapter, tmp_path: Path) -> None:
    write_adapter(replace(adapter, base_model="somebody/a-model"), tmp_path / "a")
    result = RUNNER.invoke(app, [str(tmp_path / "a"), "--for", target, "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, InputError)
    assert "--base: this export needs the base model, and 'somebody/a-model' is no model folder here" in str(result.exception)


def test_another_base_than_the_adapter_s_is_a_warning(adapter: Adapter, folder: str, tmp_path: Path) -> None:
    write_adapter(replace(adapter, base_model="org/other"), tmp_path / "named")
    for base, told in ((tmp_path / "base", True), (None, False)):
        options = [] if base is None else ["--base", str(base)]
        done = RUNNER.invoke(
            app, [str(tmp_path / "named"), "--for", "peft", "-o", str(tmp_path / f"out{told}"), *options, "--json"]
        )
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)["warnings"]
        expected = f"{tmp_path / 'named'} was trained on 'org/other', but the model is {str(base)!r}"
        assert [one for one in found if "was trained on" in one] == ([expected] if told else [])


def trained_on(model: Any, folder: Path, ends: list[str], **config: object) -> Path:
    """As PEFT writes it; fields of the config changed."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = peft.LoraConfig(r=2, target_modules=ends, init_lora_weights=False, task_type="CAUSAL_LM")
        peft.get_peft_model(copy.deepcopy(model), made).save_pretrained(str(folder))
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


@pytest.mark.filterwarnings("ignore")  # PEFT's own, about the flag that it corrects
@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("flag", [True, False])
def test_the_base_decides_how_a_square_matrix_is_stored(name: str, flag: bool, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path / "base")
    given = trained_on(model, tmp_path / "a", ["q_proj" if name == "llama" else "attn.c_proj"], fan_in_fan_out=flag)
    tokens = torch.tensor([[1, 5, 9, 33, 7]])
    expected = peft.PeftModel.from_pretrained(copy.deepcopy(model), given)(input_ids=tokens).logits
    options = ["--base", str(tmp_path / "base"), "-o", str(tmp_path / "out")]
    result = RUNNER.invoke(app, [str(given), "--for", "merged", *options])
    assert result.exit_code == 0, result.output
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(input_ids=tokens).logits
    effect = float((expected - model(input_ids=tokens).logits).abs().max())
    assert float((found - expected).abs().max()) < 1e-4 * effect
    assert RUNNER.invoke(app, [str(given), "--for", "peft", *options[:3], str(tmp_path / "peft")]).exit_code == 0
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["fan_in_fan_out"] is (name == "gpt2")


@pytest.mark.parametrize("target", ["peft", "vllm", "llama.cpp", "merged"])
def test_a_path_without_its_first_part_fits_no_export(target: str, tmp_path: Path) -> None:
    model = build("llama")
    model.save_pretrained(tmp_path / "base")
    adapter = update(model, ("q_proj",))
    shorter = replace(adapter, factors={module.removeprefix("model."): adapter[module] for module in adapter})
    write_adapter(shorter, tmp_path / "a")
    options = ["--for", target, "--base", str(tmp_path / "base"), "-o", str(tmp_path / "out")]
    result = RUNNER.invoke(app, [str(tmp_path / "a"), *options])
    assert isinstance(result.exception, InputError)
    assert "layers.0.self_attn.q_proj: the base model has no such module" in str(result.exception)
    assert "its nearest name here is model.layers.0.self_attn.q_proj" in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["T5ForConditionalGeneration"], "num_heads": 2, "d_model": 16},
        {"architectures": ["GPTNeoForCausalLM"], "num_heads": 2, "hidden_size": 16},
        {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {"num_attention_heads": 2}},
        {"architectures": ["LlamaForCausalLM"]},
        {"architectures": ["OpenELMForCausalLM"], "num_attention_heads": [2, 4]},
    ],
)
def test_vllm_needs_the_class_of_the_base_and_no_sizes(config: dict[str, object], adapter: Adapter, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    write_adapter(replace(adapter, base_model=str(tmp_path / "base")), tmp_path / "a")
    result = RUNNER.invoke(app, [str(tmp_path / "a"), "--for", "vllm", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output


def test_a_value_too_large_for_float16_is_named(adapter: Adapter, tmp_path: Path) -> None:
    first, *_ = adapter
    large = Factors(adapter[first].A * 0 + 1.5e5, adapter[first].B, adapter[first].scaling)
    write_adapter(replace(adapter, factors={**adapter.factors, first: large}), tmp_path / "a")
    options = [str(tmp_path / "a"), "--for", "peft", "-o", str(tmp_path / "out"), "--dtype"]
    result = RUNNER.invoke(app, [*options, "float16"])
    assert isinstance(result.exception, InputError)
    told = f"{first}: has a value of 1.5e+05, and float16 holds 6.55e+04 at most; nothing was written. Give --dtype bfloat16"
    assert str(result.exception).startswith(told)
    assert not (tmp_path / "out").exists()
    assert RUNNER.invoke(app, [*options, "bfloat16"]).exit_code == 0
