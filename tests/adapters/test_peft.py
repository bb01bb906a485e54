"""Against PEFT itself: what it writes is read as it means it, and what Pomona writes it loads as Pomona means it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.adapters.builders import random_factors
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from pomona.adapters import Adapter, read_adapter, write_adapter

# peft 0.21 still asks transformers 5.23 for a name that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def gpt2() -> PreTrainedModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=3, n_head=2, n_positions=32)).eval()


IDS = torch.tensor([[3, 17, 4, 44, 9, 1]])
LLAMA_MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.2.self_attn.q_proj", "model.layers.2.mlp.down_proj")
GPT2_MODULES = ("transformer.h.0.attn.c_attn", "transformer.h.2.mlp.c_proj")


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def adapter_for(model: PreTrainedModel, modules: tuple[str, ...], *, conv1d: bool) -> Adapter:
    """Ranks 2, 3, 4 and scalings that are not 1, large enough to move the logits by far more than the tolerance."""
    generator = torch.Generator().manual_seed(1)
    factors = {}
    for place, module in enumerate(modules):
        shape = model.get_parameter(f"{module}.weight").shape
        out_features, in_features = (shape[1], shape[0]) if conv1d else (shape[0], shape[1])
        factors[module] = random_factors(generator, place + 2, in_features, out_features, scaling=0.3 + place)
    return Adapter(factors, provenance={"fan_in_fan_out": conv1d})


def with_dense_deltas(model: PreTrainedModel, adapter: Adapter, *, conv1d: bool) -> PreTrainedModel:
    changed = copy.deepcopy(model)
    for module in adapter:
        delta_OI = adapter.delta(module)
        changed.get_parameter(f"{module}.weight").data += delta_OI.T if conv1d else delta_OI
    return changed


def attached_modules(model: nn.Module) -> set[str]:
    return {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }


@pytest.mark.parametrize(("base", "modules", "conv1d"), [("llama", LLAMA_MODULES, False), ("gpt2", GPT2_MODULES, True)])
def test_peft_loads_what_is_written(
    base: str, modules: tuple[str, ...], conv1d: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(base)
    adapter = adapter_for(model, modules, conv1d=conv1d)
    write_adapter(adapter, tmp_path / "out")
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path / "out")).eval()
    assert attached_modules(loaded) == set(modules)  # layer 1 has a q_proj too
    expected = logits(with_dense_deltas(model, adapter, conv1d=conv1d))
    assert (expected - logits(model)).abs().max() > 1e-2
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rslora", [False, True])
def test_what_peft_writes_is_read_as_it_means_it(llama: PreTrainedModel, tmp_path: Path, rslora: bool) -> None:
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={r"layers\.[01]\.self_attn\.q_proj": 2, "q_proj": 3},
        alpha_pattern={"^model.layers.2.mlp.down_proj": 5, ".*v_proj": 9},
        use_rslora=rslora,
        init_lora_weights=False,
    )
    model = peft.get_peft_model(copy.deepcopy(llama), config)
    model.save_pretrained(str(tmp_path / "out"))
    adapter = read_adapter(tmp_path / "out")
    assert set(adapter) == attached_modules(model)
    assert {adapter[module].rank for module in adapter} == {2, 3, 4}
    for module in adapter:
        layer: Any = model.get_submodule(f"base_model.model.{module}")
        assert adapter[module].scaling == pytest.approx(layer.scaling["default"], rel=1e-12)
        torch.testing.assert_close(adapter.delta(module), layer.get_delta_weight("default"), rtol=1e-6, atol=1e-7)


def test_gpt2_written_by_peft(gpt2: PreTrainedModel, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    model = peft.get_peft_model(copy.deepcopy(gpt2), config).eval()
    model.save_pretrained(str(tmp_path / "out"))
    adapter = read_adapter(tmp_path / "out")
    assert adapter.provenance["fan_in_fan_out"] is True
    assert adapter.delta("transformer.h.1.attn.c_attn").shape == (48, 16)
    torch.testing.assert_close(logits(model), logits(with_dense_deltas(gpt2, adapter, conv1d=True)), rtol=1e-5, atol=1e-5)
