"""Adapters and PEFT folders for tests, made without Pomona's own writer where a folder is wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pomona.adapters import Adapter, Factors

Q0, V0, Q1, V1 = (f"model.layers.{layer}.self_attn.{side}_proj" for layer in (0, 1) for side in "qv")


def random_factors(
    generator: torch.Generator,
    rank: int,
    in_features: int = 12,
    out_features: int = 20,
    scaling: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Factors:
    A = torch.randn(rank, in_features, generator=generator)
    B = torch.randn(out_features, rank, generator=generator)
    return Factors(A.to(dtype), B.to(dtype), scaling)


def random_adapter(
    seed: int,
    modules: Sequence[str] = (Q0, V0, Q1, V1),
    rank: int = 4,
    in_features: int = 12,
    out_features: int = 20,
    scaling: float = 1.0,
    dtype: torch.dtype = torch.float32,
    base_model: str | None = "base",
) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    factors = {module: random_factors(generator, rank, in_features, out_features, scaling, dtype) for module in modules}
    return Adapter(factors, base_model)


def exact_delta(adapters: Sequence[Adapter], weights: Sequence[float], module: str) -> Tensor:
    """delta* in fp64, from its definition."""
    parts = [
        weight * adapter[module].scaling * (adapter[module].B.double() @ adapter[module].A.double())
        for adapter, weight in zip(adapters, weights, strict=True)
        if module in adapter
    ]
    return torch.stack(parts).sum(0)


def peft_config(**changes: object) -> dict[str, object]:
    """A config as peft 0.21 writes it, in the fields that matter here."""
    config: dict[str, object] = {
        "alpha_pattern": {},
        "base_model_name_or_path": "base",
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "peft_version": "0.21.0",
        "r": 4,
        "rank_pattern": {},
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    return {**config, **changes}


def peft_tensors(ranks: Mapping[str, int] | None = None, in_features: int = 12, out_features: int = 20) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    tensors: dict[str, Tensor] = {}
    for module, rank in (ranks or dict.fromkeys((Q0, V0, Q1, V1), 4)).items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(rank, in_features, generator=generator)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(out_features, rank, generator=generator)
    return tensors


def embedding_tensors(
    module: str = "model.embed_tokens", rank: int = 4, vocabulary: int = 30, hidden: int = 12
) -> dict[str, Tensor]:
    """As peft 0.21 writes them: no `.weight`, A for one-hot rows, and a copy of the frozen weight."""
    generator = torch.Generator().manual_seed(6)
    return {
        f"base_model.model.{module}.lora_embedding_A": torch.randn(rank, vocabulary, generator=generator),
        f"base_model.model.{module}.lora_embedding_B": torch.randn(hidden, rank, generator=generator),
        f"base_model.model.{module}.base_layer.weight": torch.randn(vocabulary, hidden, generator=generator),
    }


def write_folder(path: Path, tensors: dict[str, Tensor] | None = None, config: dict[str, object] | None = None) -> Path:
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text(json.dumps(peft_config() if config is None else config))
    save_file(peft_tensors() if tensors is None else tensors, path / "adapter_model.safetensors")
    return path
