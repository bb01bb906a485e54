"""Tiny models of real architectures, built from their config classes with random weights that make every module count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VOCABULARY = 300
_TOKENS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SHAPE: dict[str, Any] = {
    **_TOKENS,
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_OLD: dict[str, Any] = {**_TOKENS, "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
_HEAD: dict[str, Any] = {"head_dim": 8}
_EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 24, "num_experts": 4}
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}


@dataclass(frozen=True)
class Architecture:
    """How a tiny model is built.

    Args:
        kind: transformers' model class.
        config: its config class.
        fields: the config's fields.
        parameters: fused expert parameters, by the end of their paths, that a LoRA can be trained on.
        single_experts: the linear modules of one expert in transformers 4, which transformers 5 fuses over the experts.
        experts_in: the part of the path that came before `experts` in transformers 4.
        old_prefixes: prefix of a path in transformers 5 -> the prefix that transformers 4 had.
        causal: whether the model is a causal language model, or one behind an image encoder.
    """

    kind: str
    config: str
    fields: Mapping[str, Any]
    parameters: tuple[str, ...] = ()
    single_experts: tuple[str, ...] = ()
    experts_in: str = "mlp"
    old_prefixes: Mapping[str, str] = field(default_factory=dict)
    causal: bool = True

    def build(self, seed: int = 0) -> PreTrainedModel:
        """A frozen model in fp32; weights are scaled up until every token has a logit of its own."""
        import transformers as hf

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model: PreTrainedModel = getattr(hf, self.kind)(getattr(hf, self.config)(**self.fields))
            for parameter in model.parameters():
                if parameter.ndim >= 2:
                    parameter.data.mul_(5)
                else:  # a norm's or a bias's loss shows
                    parameter.data.add_(torch.randn_like(parameter) * 0.1)
        return model.requires_grad_(False).eval()


def _decoder(name: str, **fields: Any) -> Architecture:
    return Architecture(f"{name}ForCausalLM", f"{name}Config", {**_SHAPE, **fields})


_PARTS = ("gate_proj", "up_proj", "down_proj")
_FUSED = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")


_LANGUAGE_MODEL = {"model.language_model.": "language_model.model.", "lm_head": "language_model.lm_head"}

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": _decoder("Llama"),
    "llama, tied": _decoder("Llama", tie_word_embeddings=True),
    "mistral": _decoder("Mistral"),
    "qwen2": _decoder("Qwen2"),
    "qwen3": _decoder("Qwen3", **_HEAD),
    "gemma2": _decoder("Gemma2", **_HEAD, query_pre_attn_scalar=8),
    "gemma3 text": Architecture("Gemma3ForCausalLM", "Gemma3TextConfig", {**_SHAPE, **_HEAD}),
    "phi3": _decoder("Phi3", original_max_position_embeddings=512),
    "granite": _decoder("Granite"),
    "olmo2": _decoder("Olmo2"),
    "smollm3": _decoder("SmolLM3"),
    "cohere": _decoder("Cohere"),
    "starcoder2": _decoder("Starcoder2"),
    "gpt2": Architecture("GPT2LMHeadModel", "GPT2Config", _OLD),
    "gpt-neo": Architecture(
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            **_TOKENS,
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 512,
        },
    ),
    "gpt-neox": _decoder("GPTNeoX"),
    "gpt-j": Architecture("GPTJForCausalLM", "GPTJConfig", {**_OLD, "rotary_dim": 4}),
    "opt": _decoder("OPT", ffn_dim=48, word_embed_proj_dim=32),
    "bloom": Architecture("BloomForCausalLM", "BloomConfig", {**_OLD, "hidden_size": 32}),
    "falcon": _decoder("Falcon"),
    "mixtral": Architecture(
        "MixtralForCausalLM",
        "MixtralConfig",
        {**_SHAPE, "num_experts_per_tok": 2, "num_local_experts": 4},
        _FUSED,
        ("w1", "w2", "w3"),
        "block_sparse_moe",
    ),
    "qwen2-moe": Architecture(
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {**_SHAPE, **_EXPERTS, "shared_expert_intermediate_size": 24},
        _FUSED,
        _PARTS,
    ),
    "qwen3-moe": Architecture(
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {**_SHAPE, **_HEAD, **_EXPERTS},
        _FUSED,
        _PARTS,
    ),
    "gpt-oss": Architecture(
        "GptOssForCausalLM",
        "GptOssConfig",
        {
            **_SHAPE,
            **_HEAD,
            "num_experts_per_tok": 2,
            "num_local_experts": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        _FUSED,
    ),
    "gemma3": Architecture(
        "Gemma3ForConditionalGeneration",
        "Gemma3Config",
        {
            "text_config": {**_SHAPE, **_HEAD, "model_type": "gemma3_text"},
            "vision_config": {**_VISION, "model_type": "siglip_vision_model"},
            "mm_tokens_per_image": 1,
            "image_token_index": VOCABULARY - 1,
        },
        old_prefixes=_LANGUAGE_MODEL,
    ),
    "llava": Architecture(
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        {
            "text_config": {**_SHAPE, "model_type": "llama"},
            "vision_config": {**_VISION, "model_type": "clip_vision_model"},
            "image_token_index": VOCABULARY - 1,
        },
        old_prefixes=_LANGUAGE_MODEL,
    ),
    "qwen2.5-vl": Architecture(
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen2_5_VLConfig",
        {
            "text_config": {
                **_SHAPE,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
            },
            "vision_config": {
                "depth": 1,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 4,
                "out_hidden_size": 32,
                "patch_size": 4,
                "fullatt_block_indexes": [0],
            },
            "image_token_id": VOCABULARY - 1,
            "video_token_id": VOCABULARY - 2,
            "vision_start_token_id": VOCABULARY - 3,
        },
        old_prefixes={"model.language_model.": "model."},
    ),
    "t5": Architecture(
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "decoder_start_token_id": 0,
        },
        causal=False,
    ),
}
"""Name -> architecture, as the table in the documents calls it."""
