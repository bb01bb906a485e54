"""Tiny mixtures of experts of transformers, and adapters for them as PEFT saves them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from pomona.adapters import Adapter
from pomona.adapters.experts import expert_of

IDS = torch.tensor([[3, 17, 4, 44, 9, 1, 23]])
EXPERTS = 4

# Every size that any of the configurations asks for; hidden 16, experts of 8 or 24.
_SIZES: Mapping[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "moe_intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "top_k"), 2),
    "shared_expert_intermediate_size": 8,
    "shared_intermediate_size": 8,
    "intermediate_size_mlp": 24,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "mlp_only_layers": [],
    "decoder_sparse_step": 1,
    "interleave_moe_layer_step": 1,
    "num_dense_layers": 1,
    "moe_layer_start_index": 1,
    "moe_num_shared_experts": 1,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
_OWN: Mapping[str, Mapping[str, Any]] = {"deepseek_v3": {"head_dim": 4}}


def tiny_moe(model_type: str, **changes: Any) -> PreTrainedModel:
    """Two layers with random weights; the first is dense where the architecture can have dense layers."""
    kind = CONFIG_MAPPING[model_type]
    plain = kind()
    sizes = {name: value for name, value in _SIZES.items() if hasattr(plain, name) and name not in kind.attribute_map}
    if getattr(plain, "layer_types", None):
        sizes["layer_types"] = plain.layer_types[:2]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**{**sizes, **_OWN.get(model_type, {}), **changes})).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def with_updates(model: PreTrainedModel, change: Callable[[dict[str, nn.Parameter]], None]) -> Tensor:
    """The logits of a copy whose parameters were changed by hand."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        change(dict(changed.named_parameters()))
    return logits(changed)


def add(adapters: Sequence[Adapter], parameters: dict[str, nn.Parameter], *, transposed: bool = False) -> None:
    """Add the deltas of adapters that Pomona has read, by the paths of their entries; `transposed`: experts are [E, I, O]."""
    for adapter in adapters:
        for path in adapter:
            expert, delta = expert_of(path), adapter.delta(path)
            parameter = parameters[f"{path}.weight" if expert is None else expert.parameter]
            if expert is None or parameter.ndim == 2:
                parameter += delta
            else:
                parameter[expert.number] += delta.T if transposed else delta


def trained_by_peft(model: PreTrainedModel, folder: Path, seed: int = 0, **config: Any) -> Tensor:
    """Save an adapter with random factors by PEFT; returns the logits of PEFT's own model."""
    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(task_type="CAUSAL_LM", **config)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    adapted.save_pretrained(str(folder))
    return logits(adapted)


def loaded_by_peft(model: PreTrainedModel, folder: Path) -> Tensor:
    return logits(peft.PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).eval())


def relative_error(found: Tensor, expected: Tensor, bare: Tensor) -> float:
    """As a share of the adapter's effect, which must be there."""
    effect = float((expected - bare).norm())
    assert effect > 1e-2
    return float((found - expected).norm()) / effect


def single_experts(experts: str, names: Sequence[str], numbers: Sequence[int] = range(EXPERTS)) -> Iterator[str]:
    """The paths of linear modules that transformers 4 had for the experts of one layer."""
    return (f"{experts}.{number}.{name}" for number in numbers for name in names)


def saved_by_transformers_4(folder: Path, shapes: Mapping[str, tuple[int, int]], seed: int = 0, rank: int = 2) -> Path:
    """An adapter on these linear modules (path -> (O, I)), alpha twice the rank, with `target_modules` as a trainer gives it."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for path, (out_features, in_features) in shapes.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = torch.randn(rank, in_features, generator=generator) * 0.3
        tensors[f"base_model.model.{path}.lora_B.weight"] = torch.randn(out_features, rank, generator=generator) * 0.3
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank}
    targets = sorted({path.rpartition(".")[2] for path in shapes})
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": targets}))
    return folder
