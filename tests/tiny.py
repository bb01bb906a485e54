"""Tiny causal language models with random weights, a real tokenizer that encodes any text, and a model folder on disk.

Nothing is fetched. The models are of real architectures, so what holds for them holds for their large kin.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pomona.adapters import Adapter, Factors
from pomona.backbone.batches import Encoded
from pomona.backbone.load import Backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ARCHITECTURES = ("llama", "gemma3", "qwen2", "gpt2")
VOCABULARY = 300

TARGETS = {
    "llama": ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"),
    "gemma3": ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"),
    "qwen2": ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"),
    "gpt2": ("attn.c_attn", "mlp.c_proj"),
}
"""Modules to adapt, by the end of their path."""

_TEXT = (
    "Return the sum of all values in the list. Raise an error if the file is missing. Compute the mean of the given tensor "
    "and keep the order of the rows.\n\nA short line that says what the function does, and when it fails.\n"
)


@functools.cache
def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level BPE trained on three lines: encodes any text and gives it back. Opens a text with `<s>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def tiny_model(architecture: str = "llama", seed: int = 0) -> PreTrainedModel:
    """A frozen model of two layers (Gemma 3: three, one of them with full attention), about 100 KB."""
    import transformers as hf

    tokens: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    configs: dict[str, Any] = {
        "llama": lambda: hf.LlamaConfig(**shape, **tokens, num_hidden_layers=2),
        "gemma3": lambda: hf.Gemma3TextConfig(
            **shape,
            **tokens,
            num_hidden_layers=3,
            head_dim=8,
            sliding_window=8,
            layer_types=["sliding_attention"] * 2 + ["full_attention"],
        ),
        "qwen2": lambda: hf.Qwen2Config(**shape, **tokens, num_hidden_layers=2),
        "gpt2": lambda: hf.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=512, **tokens),
    }
    classes: dict[str, Any] = {
        "llama": hf.LlamaForCausalLM,
        "gemma3": hf.Gemma3ForCausalLM,
        "qwen2": hf.Qwen2ForCausalLM,
        "gpt2": hf.GPT2LMHeadModel,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = classes[architecture](configs[architecture]())
    # transformers draws weights of 0.02, with which every token is about as likely as any other: make the model say something.
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(5)
    return model.requires_grad_(False).eval()


def tiny_backbone(architecture: str = "llama", seed: int = 0) -> Backbone:
    """A tiny model with its tokenizer, as `load_backbone` would give it."""
    return Backbone(tiny_model(architecture, seed), tiny_tokenizer(), f"tiny-{architecture}")


def save_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write a tiny Llama and its tokenizer as a model folder; returns the folder."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tiny_model("llama", seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_adapter(
    backbone: Backbone,
    seed: int = 0,
    rank: int = 3,
    scaling: float = 0.7,
    targets: Sequence[str] = ("self_attn.q_proj", "self_attn.v_proj"),
    leave_out: Sequence[str] = (),
    size: float = 0.15,
) -> Adapter:
    """Random factors, both large enough to matter, on every module whose path ends in one of `targets`."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for path, (out_features, in_features) in backbone.shapes().items():
        if path.endswith(tuple(targets)) and path not in leave_out:
            A = torch.randn(rank, in_features, generator=generator) * size
            factors[path] = Factors(A, torch.randn(out_features, rank, generator=generator) * size, scaling)
    return Adapter(factors, backbone.name, {"fan_in_fan_out": backbone.name == "tiny-gpt2"})


def tiny_examples(count: int, seed: int = 0, shortest: int = 6, longest: int = 14, completion: int = 4) -> list[Encoded]:
    """Random tokens of differing lengths; the last `completion` tokens are the completion, closed by `</s>`."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for _ in range(count):
        length = int(torch.randint(shortest, longest + 1, (), generator=generator))
        tokens = torch.randint(3, VOCABULARY, (length - 1,), generator=generator).tolist()
        examples.append(Encoded((*tokens, 2), length - completion))
    return examples
