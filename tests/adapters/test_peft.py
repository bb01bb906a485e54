"""Against PEFT itself: what it writes is read as it means it, and what Pomona writes it loads as Pomona means it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.adapters.builders import random_factors
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

from pomona.adapters import Adapter, read_adapter, write_adapter
from pomona.errors import InputError
from pomona.merging import merge

# peft 0.21 still asks transformers 5.23 for a name that it deprecates; the others it says where embeddings are adapted.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`:UserWarning"),
]


def new_llama(*, tied: bool = False) -> PreTrainedModel:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    config = LlamaConfig(**shape, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=tied)
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return new_llama()


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
def test_peft_loads_the_written_adapter(
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


EMBEDDING, HEAD = "model.embed_tokens", "lm_head"


def saved_by_peft(model: PreTrainedModel, folder: Path, **settings: Any) -> nn.Module:
    config = peft.LoraConfig(r=2, lora_alpha=3, init_lora_weights=False, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        adapted = peft.get_peft_model(copy.deepcopy(model), config).eval()
    adapted.save_pretrained(str(folder))
    return adapted


@pytest.mark.parametrize(
    ("tied", "targets", "tying", "modules"),
    [
        (False, ["q_proj", "embed_tokens"], False, {EMBEDDING}),
        (True, ["q_proj", "embed_tokens"], False, {EMBEDDING}),
        (False, ["q_proj", "embed_tokens", "lm_head"], False, {EMBEDDING, HEAD}),
        (True, ["q_proj", "embed_tokens", "lm_head"], False, {EMBEDDING, HEAD}),
        (True, ["q_proj", "embed_tokens"], True, {EMBEDDING, HEAD}),  # PEFT writes the embedding's factors for the head as well
    ],
)
def test_embeddings_written_by_peft_and_for_peft(
    tied: bool, targets: list[str], tying: bool, modules: set[str], tmp_path: Path
) -> None:
    model = new_llama(tied=tied)
    adapted = saved_by_peft(model, tmp_path / "a", target_modules=targets, ensure_weight_tying=tying)
    adapter = read_adapter(tmp_path / "a")
    assert set(adapter) == attached_modules(adapted)
    assert {module for module in adapter if "q_proj" not in module} == modules
    assert adapter.embeddings == {EMBEDDING}
    layer: Any = adapted.get_submodule(f"base_model.model.{EMBEDDING}")
    torch.testing.assert_close(adapter.delta(EMBEDDING).T, layer.get_delta_weight("default"), rtol=1e-6, atol=1e-7)

    write_adapter(adapter, tmp_path / "b")
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path / "b")).eval()
    assert attached_modules(loaded) == set(adapter)
    expected = logits(adapted)
    assert (expected - logits(model)).abs().max() > 1e-2
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-5, atol=1e-5)


def test_a_merge_of_embeddings_is_the_sum_in_the_model(llama: PreTrainedModel, tmp_path: Path) -> None:
    saved_by_peft(llama, tmp_path / "a", target_modules=["embed_tokens"])
    saved_by_peft(llama, tmp_path / "b", target_modules=["embed_tokens", "v_proj"])
    one, two = read_adapter(tmp_path / "a"), read_adapter(tmp_path / "b")
    write_adapter(merge([one, two], "svd", [1.0, -0.5]), tmp_path / "c")
    changed = copy.deepcopy(llama)
    changed.get_parameter(f"{EMBEDDING}.weight").data += (one.delta(EMBEDDING) - 0.5 * two.delta(EMBEDDING)).T
    for module in set(two) - {EMBEDDING}:
        changed.get_parameter(f"{module}.weight").data -= 0.5 * two.delta(module)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(llama), str(tmp_path / "c")).eval()
    torch.testing.assert_close(logits(loaded), logits(changed), rtol=1e-5, atol=1e-5)


def test_layers_to_transform_and_excluded_modules(llama: PreTrainedModel, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"layers_to_transform": [0, 2], "layers_pattern": "layers", "exclude_modules": ["mlp.up_proj"]}
    adapted = saved_by_peft(llama, tmp_path / "a", target_modules=["q_proj", "up_proj", "down_proj"], **settings)
    assert set(read_adapter(tmp_path / "a")) == attached_modules(adapted)
    assert len(attached_modules(adapted)) == 4


def test_all_linear(llama: PreTrainedModel, tmp_path: Path) -> None:
    adapted = saved_by_peft(llama, tmp_path / "a", target_modules="all-linear")
    assert set(read_adapter(tmp_path / "a")) == attached_modules(adapted)
    assert len(attached_modules(adapted)) == 21


def test_peft_passes_over_factors_that_the_config_leaves_out(llama: PreTrainedModel, tmp_path: Path) -> None:
    """The reason why Pomona refuses such a folder."""
    saved_by_peft(llama, tmp_path / "a", target_modules=["q_proj", "v_proj"])
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "target_modules": ["q_proj"]}))
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(llama), str(tmp_path / "a"))
    assert not any("v_proj" in module for module in attached_modules(loaded))
    with pytest.raises(InputError, match=r"target_modules: leaves out model\.layers\.0\.self_attn\.v_proj, whose factors are in"):
        read_adapter(tmp_path / "a")


def test_mica_leaves_the_base_as_it_is(llama: PreTrainedModel, tmp_path: Path) -> None:
    """An initialisation from the base weight that, unlike PiSSA's, takes nothing out of it."""
    adapted = peft.get_peft_model(copy.deepcopy(llama), peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="mica"))
    layer: Any = adapted.get_submodule(f"base_model.model.{LLAMA_MODULES[0]}")
    layer.lora_A["default"].weight.data.normal_(generator=torch.Generator().manual_seed(0))
    adapted.save_pretrained(str(tmp_path / "a"))
    adapter = read_adapter(tmp_path / "a")
    expected = logits(with_dense_deltas(llama, adapter, conv1d=False))
    assert (expected - logits(llama)).abs().max() > 1e-3
    torch.testing.assert_close(logits(adapted.eval()), expected, rtol=1e-5, atol=1e-5)


def tiny_mixtral() -> PreTrainedModel:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    return MixtralForCausalLM(
        MixtralConfig(**shape, num_attention_heads=2, num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2)
    ).eval()


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning")
def test_peft_loads_merged_experts(tmp_path: Path) -> None:
    """Factors for each expert, as saved with transformers 4; PEFT puts them together for the fused weights of transformers 5."""
    model = tiny_mixtral()
    generator = torch.Generator().manual_seed(1)
    shapes = {"w1": (16, 24), "w2": (24, 16), "w3": (16, 24)}
    names = [
        (layer, expert, side, f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{side}")
        for layer in range(2)
        for expert in range(4)
        for side in shapes
    ]
    adapters = [
        Adapter({name: random_factors(generator, rank, *shapes[side], scaling=0.1) for _, _, side, name in names})
        for rank in (2, 3)
    ]
    write_adapter(merge(adapters, "concat"), tmp_path / "a")
    changed = copy.deepcopy(model)
    for layer, expert, side, name in names:
        experts: Any = changed.get_submodule(f"model.layers.{layer}.mlp.experts")
        weight = experts.down_proj if side == "w2" else experts.gate_up_proj
        rows = {"w1": slice(0, 24), "w2": slice(None), "w3": slice(24, 48)}[side]
        weight.data[expert, rows] += sum(adapter.delta(name) for adapter in adapters)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path / "a")).eval()
    expected = logits(changed)
    assert (expected - logits(model)).abs().max() > 1e-2
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-5, atol=1e-5)
