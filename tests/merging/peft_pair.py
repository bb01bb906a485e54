"""A PEFT model with two adapters to merge, and the folder where PEFT saved them."""

from __future__ import annotations

from pathlib import Path

import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM

NAMES = ("one", "two")


def peft_pair(folder: Path, key_heads: int) -> peft.PeftModel:
    """A tiny random Llama with two adapters of one rank and different scalings, saved to `folder` under their names.

    With two key heads all adapted weights are square.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=key_heads,
    )
    model: peft.PeftModel | None = None
    for name, alpha in zip(NAMES, (8, 3), strict=True):
        lora = peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        if model is None:
            model = peft.PeftModel(LlamaForCausalLM(config), lora, adapter_name=name)
        else:
            model.add_adapter(name, lora)
    assert model is not None
    model.save_pretrained(str(folder))
    return model
