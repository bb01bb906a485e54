"""Tiny models on disk, adapters of PEFT on them, and logits to judge by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

IDS = torch.tensor([[3, 17, 4, 44, 9, 1]])
Q0 = "model.layers.0.self_attn.q_proj"


def new_model(kind: str = "llama", seed: int = 0) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "gpt2":
            model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32))
        else:
            shape: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
            config = LlamaConfig(**shape, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=kind == "tied")
            model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        parameter.data *= 10 if parameter.ndim == 2 else 1  # weights that say something
    model.config.architectures = [type(model).__name__]
    return model.eval().requires_grad_(False)


def saved(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    return folder


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(IDS).logits[0]


def peft_adapter(base: Path, folder: Path, kind: str = "llama", **changes: Any) -> Tensor:
    """Save an adapter of PEFT whose every parameter has moved, and return the logits of its model."""
    config: dict[str, Any] = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    model = peft.get_peft_model(new_model(kind), peft.LoraConfig(**{**config, **changes}))
    model.peft_config["default"].base_model_name_or_path = str(base)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=generator))
            elif "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.eval()
    model.save_pretrained(str(folder))
    return logits(model)


def peft_logits(folder: Path, kind: str = "llama") -> Tensor:
    """The logits of the base with an adapter that PEFT loads."""
    return logits(peft.PeftModel.from_pretrained(new_model(kind), folder).eval())


def assert_same_effect(found: Tensor, expected: Tensor, kind: str = "llama", share: float = 1e-4) -> None:
    """Within a share of the effect that the adapter has."""
    effect = (expected - logits(new_model(kind))).norm()
    assert effect > 0.1
    assert (found - expected).norm() <= share * effect
