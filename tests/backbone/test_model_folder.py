"""What in a model's files stands against loading it: another format, quantised weights, an adapter beside it, missing parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.end_to_end.setting import call, make_setting
from tests.tiny import save_tiny_model, tiny_adapter, tiny_backbone

from pomona.adapters import write_adapter
from pomona.adapters.export import export_merged
from pomona.backbone.load import load_backbone
from pomona.errors import InputError

BITSANDBYTES = {"quant_method": "bitsandbytes", "load_in_8bit": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", seed=3)


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(folder, tmp_path / "model")


def configured(model: Path, **changes: object) -> Path:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))
    return model


def refused(model: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        load_backbone(str(model), device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_adapter(model: Path) -> Path:
    """The folder with an adapter of its own that changes the logits a lot."""
    write_adapter(tiny_adapter(tiny_backbone(seed=3), size=0.5), model.with_name("adapter"))
    for file in model.with_name("adapter").iterdir():
        shutil.copyfile(file, model / file.name)
    return model


# Quantised -----------------------------------------------------------------------------------------------------------------


def test_a_quantised_model_is_refused_before_its_weights_are_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights were read"))
    assert refused(configured(model, quantization_config={"quant_method": "awq", "bits": 4})) == (
        f"{model}/config.json: quantization_config: the model is quantised (awq, 4-bit), and adapters are trained beside "
        "bitsandbytes' modules alone. Give the model that it was quantised from, with quantization_config: {load_in_4bit: true} "
        "where memory is short."
    )
    assert refused(configured(model, quantization_config=BITSANDBYTES)) == (
        f"{model}/config.json: quantization_config: says that the model is quantised by bitsandbytes, and its weights are floats. "
        "Take quantization_config out of it."
    )


def test_codes_in_the_weights_of_a_config_that_is_silent_about_them(model: Path) -> None:
    """transformers turns the codes into floats, which are then the weights of another model."""
    tensors = load_file(model / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name] = (tensors[name] * 100).to(torch.int8)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    assert f"{name}: is stored as I8, so the model is quantised" in refused(model)


def test_every_verb_refuses_a_quantised_model(tmp_path: Path) -> None:
    folder = make_setting(tmp_path)
    configured(folder / "model", quantization_config={"quant_method": "gptq", "bits": 4})
    for verb in (
        ("adapt", "small.yaml"),
        ("adapt", "small.yaml", "--dry-run"),
        ("train-adapter", "source.yaml"),
        ("evaluate", "--data", "source.jsonl", "--model", "model", "--adapter", "adapters/alpha"),
        ("generate", "x", "--model", "model"),
        ("export", "adapters/alpha", "--for", "merged", "--base", "model", "--output", "merged"),
    ):
        outcome = call(folder, *verb)
        assert (outcome.code, outcome.out) == (2, ""), verb
        (line,) = outcome.errors
        assert "quantization_config: the model is quantised (gptq, 4-bit)" in line
    assert {path.name for path in folder.iterdir()} == {
        "model", "data.jsonl", "source.jsonl", "adapters", "small.yaml", "source.yaml",
    }  # fmt: skip


def test_the_inner_config_of_a_base_counts_for_a_merged_model_too(model: Path, tmp_path: Path) -> None:
    configured(model, text_config={"quantization_config": BITSANDBYTES})
    with pytest.raises(InputError, match="says that the model is quantised by bitsandbytes, and its weights are floats"):
        export_merged(tiny_adapter(tiny_backbone()), tmp_path / "out", model)


# An adapter in the model's folder ----------------------------------------------------------------------------------------------


def test_an_adapter_next_to_the_weights_is_not_loaded_with_a_warning(model: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    bare = load_backbone(str(folder), device="cpu")
    found = load_backbone(str(with_adapter(model)), device="cpu")
    assert bare.warnings == ()
    (warning,) = found.warnings
    assert warning == (
        f"{model} also holds an adapter (adapter_config.json), which is not used: the base model alone is loaded. To use the "
        "adapter, name it as one, in a folder without config.json"
    )
    assert list(found.linear_modules()) == list(bare.linear_modules())
    assert found.fingerprint == bare.fingerprint
    tokens = torch.tensor([[1, 5, 9, 200]])
    assert torch.equal(found.model(input_ids=tokens).logits, bare.model(input_ids=tokens).logits)
    # What transformers makes of the same folder by itself is another model.
    with_it = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)(input_ids=tokens).logits
    assert not torch.allclose(with_it, bare.model(input_ids=tokens).logits, atol=1e-2)


@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter_alone_is_not_a_model(model: Path, tmp_path: Path, *, with_config: bool) -> None:
    """Some trainers write the base's config beside the adapter."""
    folder = with_adapter(model)
    (folder / "model.safetensors").unlink()
    if not with_config:
        (folder / "config.json").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "owner/base"}))
    assert refused(folder) == (
        f"model: is an adapter and not a model (got '{folder}'). Give its base model, owner/base, as the model, and {folder} as an "
        "adapter."
    )


def cached(hub: Path, repository: str, files: Path) -> None:
    """Put a folder into a local hub cache."""
    place = hub / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    shutil.copytree(files, place / "snapshots" / ("0" * 40))


def test_what_lies_in_the_hub_s_cache_is_looked_at_too(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    cached(tmp_path / "hub", "owner/both", with_adapter(model))
    found = load_backbone("owner/both", device="cpu")
    assert found.fingerprint == load_backbone(str(folder), device="cpu").fingerprint
    assert found.warnings[0].startswith("owner/both also holds an adapter (adapter_config.json), which is not used")
    codes = shutil.copytree(folder, tmp_path / "codes")
    cached(tmp_path / "hub", "owner/codes", configured(codes, quantization_config=BITSANDBYTES))
    assert "quantization_config: says that the model is quantised by bitsandbytes" in refused("owner/codes")
    (model / "model.safetensors").unlink()
    (model / "config.json").unlink()
    cached(tmp_path / "hub", "owner/adapter", model)
    assert refused("owner/adapter").startswith("model: is an adapter and not a model (got 'owner/adapter')")


# Parts that are missing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "LlamaTokenizer", "Qwen2Tokenizer"])
def test_a_folder_without_the_tokenizer_s_vocabulary(model: Path, kind: str) -> None:
    """Of some kinds transformers makes up an empty tokenizer, for which every text is nothing."""
    (model / "tokenizer.json").unlink()
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": kind}))
    assert refused(model).startswith("model: the model cannot be loaded: it has no tokenizer, such as tokenizer.json; save")


def test_a_folder_without_a_config_and_a_file(model: Path) -> None:
    (model / "config.json").unlink()
    assert "the model cannot be loaded: it has no config.json" in refused(model)
    assert "is a file and not a model folder" in refused(model / "model.safetensors")
    (model / "q4.gguf").touch()
    assert "is a GGUF file and not a model folder" in refused(model / "q4.gguf")


def test_an_untied_model_without_its_output_head(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    assert "such as lm_head.weight" in refused(model)
    configured(model, tie_word_embeddings=True)
    network = load_backbone(str(model), device="cpu").model
    assert network.get_output_embeddings().weight.data_ptr() == network.get_input_embeddings().weight.data_ptr()  # pyright: ignore


def test_the_dtype_of_the_config_plays_no_part(model: Path) -> None:
    found = load_backbone(str(configured(model, dtype="float16", torch_dtype="bfloat16")), device="cpu")
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}
