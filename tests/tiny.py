"""Tiny causal language models with random weights, a real tokenizer that encodes any text, and a model folder on disk.

Nothing is fetched. The models are of real architectures, so what holds for them holds for their large kin.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pomona.adapters import Adapter, Factors
from pomona.backbone.batches import Encoded
from pomona.backbone.generate import Generated
from pomona.backbone.load import Backbone
from pomona.backbone.speed import switched_on

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


CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
"""Turns as most models write them. `tiny_chat_tokenizer` marks their ends as special without a name for them, as Gemma's does."""


@functools.cache
def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level BPE trained on three lines: encodes any text and gives it back. Opens a text with `<s>`."""
    return _tokenizer(["<pad>", "<s>", "</s>"])


@functools.cache
def tiny_chat_tokenizer(template: str = CHAT_TEMPLATE) -> PreTrainedTokenizerBase:
    """As `tiny_tokenizer`, with a chat template."""
    tokenizer = _tokenizer(["<pad>", "<s>", "</s>", "<|turn|>", "<|end|>"])
    tokenizer.chat_template = template
    return tokenizer


def _tokenizer(special: list[str]) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
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


def texts_of(answers: Sequence[Generated | None]) -> list[str]:
    """The texts of answers, all of which there must be."""
    assert all(answer is not None for answer in answers)
    return [answer.text for answer in answers if answer is not None]


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
    model = tiny_model(architecture, seed)
    return Backbone(model, tiny_tokenizer(), f"tiny-{architecture}", speed=switched_on(model))


def save_tiny_model(folder: Path, seed: int = 0, tokenizer: PreTrainedTokenizerBase | None = None) -> Path:
    """Write a tiny Llama and its tokenizer as a model folder; returns the folder."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tiny_model("llama", seed).save_pretrained(folder)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return folder


def scripted_backbone(
    follows: Mapping[str, str | Mapping[str, float]], tokenizer: PreTrainedTokenizerBase | None = None
) -> Backbone:
    """A Llama whose next token depends on the last one alone.

    Args:
        follows: text -> the text that follows it, or following texts with their logits (those of all others are 0); each is one
            token, and a text that is not here is followed by any token.
        tokenizer: `tiny_tokenizer()` by default.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer or tiny_tokenizer()
    shape: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": VOCABULARY, "intermediate_size": 4}
    config = LlamaConfig(
        **shape, num_hidden_layers=1, num_attention_heads=2, rms_norm_eps=0.0, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    model: Any = LlamaForCausalLM(config).requires_grad_(False).eval()
    layer = model.model.layers[0]
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()
    model.model.embed_tokens.weight.copy_(torch.eye(VOCABULARY))
    model.lm_head.weight.zero_()
    for text, following in follows.items():
        for next_text, logit in ({following: 20.0} if isinstance(following, str) else following).items():
            # The last norm makes a one-hot vector as long as the root of its size.
            model.lm_head.weight[token_of(next_text, tokenizer), token_of(text, tokenizer)] = logit / VOCABULARY**0.5
    return Backbone(model, tokenizer, "scripted")


def token_of(text: str, tokenizer: PreTrainedTokenizerBase | None = None) -> int:
    """The one token of a text."""
    ids: Any = (tokenizer or tiny_tokenizer())(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == 1, f"{text!r} is not one token"
    return ids[0]


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
