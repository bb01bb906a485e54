"""Tiny models whose modules transformers 5 renamed, with the names that transformers 4 gave them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

TOKENS = torch.tensor([[1, 7, 8, 9, 20, 11]])
_TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
_ROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}
_BLOCKS = {"depth": 1, "hidden_size": 16, "num_heads": 2, "patch_size": 4, "out_hidden_size": 16, "intermediate_size": 24}
CONFIGS: Mapping[str, Callable[[], Any]] = {
    "gemma3": lambda: hf.Gemma3Config(
        text_config={**_TEXT, "sliding_window": 8}, vision_config=dict(_VISION), mm_tokens_per_image=4
    ),
    "llava": lambda: hf.LlavaConfig(
        text_config=hf.LlamaConfig(**_TEXT), vision_config=hf.CLIPVisionConfig(**_VISION), image_token_index=5
    ),
    "mistral3": lambda: hf.Mistral3Config(
        text_config=hf.MistralConfig(**_TEXT), vision_config=hf.PixtralVisionConfig(**_VISION), image_token_index=5
    ),
    "paligemma": lambda: hf.PaliGemmaConfig(
        text_config={**_TEXT, "model_type": "gemma"},
        vision_config={**_VISION, "model_type": "siglip_vision_model"},
        projection_dim=16,
        image_token_index=5,
    ),
    "qwen2_vl": lambda: hf.Qwen2VLConfig(
        text_config={**_TEXT, **_ROPE},
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4},
    ),
    "qwen2_5_vl": lambda: hf.Qwen2_5_VLConfig(text_config={**_TEXT, **_ROPE}, vision_config=dict(_BLOCKS)),
}
PEFT_TRANSLATES = ("gemma3", "llava", "mistral3", "paligemma")


def build(name: str) -> Any:
    """A model that sees and writes, with random weights large enough to say something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForImageTextToText.from_config(CONFIGS[name]())
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(5)
    return model.requires_grad_(False).eval()


def older(name: str, module: str) -> str:
    """What transformers 4 called a module of the language model."""
    before = "model." if name.startswith("qwen2") else "language_model.model."
    return module.replace("model.language_model.", before)


def trained(model: Any, folder: Path, seed: int, end: str = "q_proj") -> Path:
    """A folder as PEFT writes it for this model today."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        targets = [path for path, _ in model.named_modules() if "language_model" in path and path.endswith(end)]
        config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
        peft.get_peft_model(copy.deepcopy(model), config).save_pretrained(str(folder))
    return folder


def as_before(name: str, newer: Path, folder: Path) -> Path:
    """The folder as transformers 4 and PEFT would have written it."""
    folder.mkdir()
    tensors = load_file(newer / "adapter_model.safetensors")
    prefix = "base_model.model."
    renamed = {f"{prefix}{older(name, key.removeprefix(prefix))}": tensor for key, tensor in tensors.items()}
    save_file(renamed, folder / "adapter_model.safetensors")
    config = json.loads((newer / "adapter_config.json").read_text())
    config["target_modules"] = ["q_proj", "k_proj", "v_proj"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def logits(model: Any, *folders: Path) -> Tensor:
    """Of the model with the sum of PEFT folders; several only of equal modules, ranks and scaling."""
    model = copy.deepcopy(model)
    if folders:
        model = peft.PeftModel.from_pretrained(model, folders[0])
        for number, folder in enumerate(folders[1:]):
            model.load_adapter(folder, f"more{number}")
        if len(folders) > 1:
            names = ["default", *(f"more{number}" for number in range(len(folders) - 1))]
            model.base_model.set_adapter(names)
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def assert_same_effect(found: Tensor, expected: Tensor, bare: Tensor) -> None:
    """Within 1e-4 of the adapter's effect."""
    effect = float((expected - bare).abs().max())
    assert effect > 1e-2
    assert float((found - expected).abs().max()) < 1e-4 * effect
