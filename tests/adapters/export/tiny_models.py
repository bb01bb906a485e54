"""Tiny models of every architecture that is exported for llama.cpp, updates for them, and their GGUF files.

The files are written without Pomona's exporter. That they are right is seen from llama.cpp's logits, which equal those of
transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pomona.adapters import Adapter, Factors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = [1, 5, 9, 33, 7, 60, 12, 3, 41, 22, 8, 50]
LAYERS, VOCABULARY, HEADS, KEY_HEADS, WIDTH = 2, 64, 4, 2, 32
_TOKENS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SHAPE: dict[str, Any] = {
    **_TOKENS,
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "max_position_embeddings": 64,
}
# name -> (transformers' family, llama.cpp's architecture, fields of the config beside the shape, metadata beside the common)
MODELS: dict[str, tuple[str, str, dict[str, Any], dict[str, float]]] = {
    "llama": ("Llama", "llama", {}, {}),
    "llama-tied": ("Llama", "llama", {"tie_word_embeddings": True}, {}),
    "mistral": ("Mistral", "llama", {"head_dim": 8, "sliding_window": None}, {}),
    "smollm3": ("SmolLM3", "smollm3", {"no_rope_layers": [1, 1]}, {}),
    "granite": (
        "Granite",
        "granite",
        {"attention_multiplier": 0.3, "embedding_multiplier": 2.0, "residual_multiplier": 0.5, "logits_scaling": 4.0},
        {"attention.scale": 0.3, "embedding_scale": 2.0, "residual_scale": 0.5, "logit_scale": 4.0},
    ),
    "qwen2": ("Qwen2", "qwen2", {}, {}),
    "qwen3": ("Qwen3", "qwen3", {"head_dim": 8}, {}),
    "gemma": ("Gemma", "gemma", {"head_dim": 16}, {}),
    "gemma2": (
        "Gemma2",
        "gemma2",
        {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64},
        {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "attention.sliding_window": 64},
    ),
    "gemma3": (
        "Gemma3Text",
        "gemma3",
        {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64, "layer_types": ["sliding_attention"] * LAYERS},
        {"attention.sliding_window": 64},
    ),
    "phi3": ("Phi3", "phi3", {"original_max_position_embeddings": 64}, {"rope.scaling.original_context_length": 64}),
    "gpt2": ("GPT2", "gpt2", {}, {}),
}


def build(name: str, seed: int = 0) -> PreTrainedModel:
    """A frozen model with random weights that say something."""
    import transformers as hf

    family, _, fields, _ = MODELS[name]
    if family == "GPT2":
        config = hf.GPT2Config(
            **_TOKENS, vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=64, n_inner=48
        )
        kind = hf.GPT2LMHeadModel
    else:
        config = getattr(hf, f"{family}Config")(**{**_SHAPE, **fields})
        kind = getattr(hf, f"{family.removesuffix('Text')}ForCausalLM")
    config._attn_implementation = "eager"
    config.architectures = [kind.__name__]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = kind(config)
    generator = torch.Generator().manual_seed(seed + 1)
    for path, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        # Norms and biases away from one and zero: a file that loses them is seen.
        parameter.data = parameter.data * 5 if parameter.ndim == 2 else parameter.data + 0.1 * noise
        assert torch.isfinite(parameter).all(), path
    return model.requires_grad_(False).eval()


def update(model: PreTrainedModel, ends: Sequence[str], size: float = 0.2) -> Adapter:
    """Random factors, of differing ranks and scalings, on every module whose path ends in one of `ends`."""
    from transformers.pytorch_utils import Conv1D

    generator = torch.Generator().manual_seed(3)
    factors: dict[str, Factors] = {}
    embeddings: set[str] = set()
    conv1d = False
    for place, (path, module) in enumerate(model.named_modules()):
        if not path.endswith(tuple(ends)):
            continue
        rows, columns = module.weight.shape  # pyright: ignore[reportGeneralTypeIssues]
        # Of an embedding and of a Conv1D the weight is stored [I, O].
        shape = (columns, rows) if isinstance(module, Conv1D | nn.Embedding) else (rows, columns)
        rank = 1 + place % 3
        A = torch.randn(rank, int(shape[1]), generator=generator) * size
        factors[path] = Factors(A, torch.randn(int(shape[0]), rank, generator=generator) * size, 0.5 + place % 2)
        conv1d |= isinstance(module, Conv1D)
        if isinstance(module, nn.Embedding):
            embeddings.add(path)
    return Adapter(factors, "tiny", {"fan_in_fan_out": conv1d}, frozenset(embeddings))


@torch.no_grad()
def transformers_logits(model: PreTrainedModel, tokens: Sequence[int], adapter: Adapter | None = None) -> Tensor:
    """Logits [T, V], with the adapter's deltas in the weights."""
    from transformers.pytorch_utils import Conv1D

    kept: dict[str, Tensor] = {}
    for path in adapter or ():
        assert adapter is not None
        module = model.get_submodule(path)
        weight: Tensor = module.weight  # pyright: ignore[reportAssignmentType]
        kept[path] = weight.clone()
        delta = adapter.delta(path)
        weight += delta.T if isinstance(module, Conv1D | nn.Embedding) else delta
    logits = model(torch.tensor([list(tokens)])).logits[0]
    for path, weight in kept.items():
        model.get_submodule(path).weight.copy_(weight)  # pyright: ignore[reportCallIssue]
    return logits


def interleaved(rows: Tensor, heads: int) -> Tensor:
    """From rotary's definitions: transformers rotates row i of a head with row i + D/2, llama.cpp's Llama row 2i with 2i + 1."""
    size = rows.shape[0] // heads
    moved = torch.empty_like(rows)
    for head in range(heads):
        for pair in range(size // 2):
            for place, partner in enumerate((pair, pair + size // 2)):
                moved[head * size + 2 * pair + place] = rows[head * size + partner]
    return moved


def write_gguf(name: str, model: PreTrainedModel, file: Path) -> Path:
    """The model as an fp32 GGUF file without a vocabulary."""
    import gguf

    _, arch, _, extra = MODELS[name]
    config = model.config
    writer = gguf.GGUFWriter(file, arch)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(48)
    writer.add_head_count(HEADS)
    if arch == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        size = getattr(config, "head_dim", None) or WIDTH // HEADS
        writer.add_head_count_kv(KEY_HEADS)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_key_length(size)
        writer.add_value_length(size)
        writer.add_rope_dimension_count(size)
        parameters = config.rope_parameters
        writer.add_rope_freq_base(parameters.get("full_attention", parameters)["rope_theta"])
    for key, value in extra.items():
        if isinstance(value, float):
            writer.add_float32(f"{arch}.{key}", value)
        else:
            writer.add_uint32(f"{arch}.{key}", value)
    known = next(one for one, called in gguf.MODEL_ARCH_NAMES.items() if called == arch)
    table = gguf.get_tensor_name_map(known, LAYERS)
    for path, weight in model.state_dict().items():
        if path == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if path.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        tensor = weight.float()
        if arch in {"llama", "smollm3", "granite"} and path.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = interleaved(tensor, HEADS if "q_proj" in path else KEY_HEADS)
        if arch.startswith("gemma") and path.endswith("norm.weight"):
            tensor = tensor + 1
        if arch == "gpt2" and path.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            tensor = tensor.T
        called = table.get_name(path, try_suffixes=(".weight", ".bias"))
        assert called is not None, path
        writer.add_tensor(called, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
