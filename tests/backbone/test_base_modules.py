"""The table of a base model's modules: from the model, from its config alone, and the same as PEFT's choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from safetensors.torch import save_file
from tests.adapters.builders import random_adapter
from tests.adapters.export.tiny_models import build
from tests.adapters.renamed_models import CONFIGS
from tests.tiny import tiny_backbone
from torch import nn

from pomona.adapters import Adapter, check_compatible
from pomona.adapters.base_modules import BaseModule, misfit, respelled
from pomona.adapters.export.base_folder import read_base_folder
from pomona.backbone.attach import attached
from pomona.backbone.base_modules import modules_of, modules_of_folder
from pomona.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own, about models of this size


def config_folder(config: Any, folder: Path, **changes: object) -> Path:
    """A folder with a config and no weights."""
    config.save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gemma3", "phi3"])
def test_the_config_alone_gives_the_model_s_modules(name: str, tmp_path: Path) -> None:
    model = build(name)
    found = modules_of_folder(config_folder(model.config, tmp_path, architectures=[type(model).__name__]))
    assert found is not None
    exact = modules_of(model)
    assert found.modules == exact.modules
    assert found.heads == exact.heads == {"lm_head"}


def test_what_each_kind_is() -> None:
    found = modules_of(build("gpt2")).modules  # of width 32, vocabulary 64
    assert found["transformer.h.0.attn.c_attn"] == BaseModule("conv1d", (96, 32))
    assert found["transformer.wte"] == BaseModule("embedding", (32, 64))
    assert found["lm_head"] == BaseModule("linear", (64, 32))
    assert found["transformer.h.0.ln_1"] == BaseModule("other", note="LayerNorm")


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_peft_adapts_exactly_what_fits(name: str) -> None:
    """All modules that PEFT takes, and their shapes, against the verdict on factors of that shape."""
    model = build(name)
    table = modules_of(model)
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) or not path or not hasattr(module, "weight"):
            continue
        out, into = (table.modules[path].shape) if path in table.modules else (1, 1)
        adapter = random_adapter(0, [path], rank=1, in_features=max(into, 1), out_features=max(out, 1))
        try:
            adapted: Any = peft.get_peft_model(build(name), peft.LoraConfig(r=1, target_modules=[path]))
            shape = adapted.base_model.model.get_submodule(path)
            takes = (shape.out_features, shape.in_features) == (out, into)
        except ValueError:
            takes = False
        assert (misfit(adapter, path, table) is None) == takes, path


def test_a_config_without_a_head_is_that_of_either_model(tmp_path: Path) -> None:
    """Files of an encoder are trained with a head and without."""
    folder = config_folder(build("llama").config, tmp_path, architectures=["LlamaModel"])
    for wanted in ("model.layers.0.self_attn.q_proj", "layers.0.self_attn.q_proj"):
        found = modules_of_folder(folder, [wanted])
        assert found is not None
        assert wanted in found.modules
    whole = modules_of_folder(config_folder(build("llama").config, tmp_path, architectures=["LlamaForCausalLM"]), [wanted])
    assert whole is not None
    assert wanted not in whole.modules


@pytest.mark.parametrize("changes", [{"model_type": "of-nobody"}, {"model_type": None}, {"num_attention_heads": "many"}])
def test_a_model_that_transformers_does_not_know(changes: dict[str, object], tmp_path: Path) -> None:
    assert modules_of_folder(config_folder(build("llama").config, tmp_path, **changes)) is None
    assert modules_of_folder(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("config", "module", "shape"),
    [
        (
            hf.T5Config(d_model=16, d_kv=8, num_heads=2, d_ff=24, num_layers=1, vocab_size=64),
            "decoder.block.0.layer.1.EncDecAttention.q",
            (16, 16),
        ),
        (CONFIGS["llava"](), "model.multi_modal_projector.linear_1", (16, 16)),
        (
            hf.BartConfig(
                d_model=16,
                encoder_layers=1,
                decoder_layers=1,
                encoder_ffn_dim=8,
                decoder_ffn_dim=8,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                vocab_size=64,
            ),
            "model.encoder.layers.0.fc1",
            (8, 16),
        ),
    ],
)
def test_models_that_do_more_than_go_on_with_a_text(config: Any, module: str, shape: tuple[int, int], tmp_path: Path) -> None:
    found = modules_of_folder(config_folder(config, tmp_path))
    assert found is not None
    assert found.modules[module] == BaseModule("linear", shape)


def test_shapes_come_from_the_files(tmp_path: Path) -> None:
    """A config that is written by hand may leave sizes out."""
    folder = config_folder(build("llama").config, tmp_path, architectures=["LlamaForCausalLM"])
    save_file({"model.layers.0.self_attn.q_proj.weight": torch.zeros(20, 12)}, folder / "model.safetensors")
    modules = read_base_folder(folder, modules_of_folder(folder)).modules.modules
    assert modules["model.layers.0.self_attn.q_proj"] == BaseModule("linear", (20, 12))
    assert modules["model.layers.0.self_attn.k_proj"] == BaseModule("linear", (16, 32))


def test_the_flag_becomes_what_peft_makes_of_it() -> None:
    for name, right in (("llama", False), ("gpt2", True)):
        module = "transformer.h.0.attn.c_proj" if name == "gpt2" else "model.layers.0.self_attn.q_proj"
        for flag in (True, False):
            adapter = Adapter(
                random_adapter(0, [module], in_features=32, out_features=32).factors, provenance={"fan_in_fan_out": flag}
            )
            assert respelled(adapter, modules_of(build(name))).provenance["fan_in_fan_out"] is right


def test_the_head_cannot_be_attached_and_is_not_passed_over() -> None:
    backbone = tiny_backbone("llama")
    adapter = random_adapter(0, ["lm_head"], in_features=32, out_features=300)
    assert misfit(adapter, "lm_head", modules_of(backbone.model)) is None
    with pytest.raises(InputError, match="lm_head: adapts the output head, and only factors of linear modules within the model"):
        check_compatible([adapter], modules_of(backbone.model))
    with pytest.raises(InputError, match="lm_head"), attached(backbone, [adapter]):
        pass
