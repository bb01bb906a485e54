"""Batched greedy decoding against transformers' own, one prompt at a time, and the line-end rule on a scripted model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.tiny import VOCABULARY, tiny_backbone, tiny_tokenizer
from tokenizers import processors
from transformers import LlamaConfig, LlamaForCausalLM

from pomona.backbone.generate import generate
from pomona.backbone.load import Backbone
from pomona.errors import InputError

PROMPTS = ["Return the sum of all values", "Raise", "a b c d e f g h i j k l m n o p q r s t", "日本語", "Compute the mean", "x"]


def one_by_one(backbone: Backbone, prompt: str, max_new_tokens: int) -> str:
    tokens = torch.tensor([backbone.tokenizer(prompt)["input_ids"]])
    output = backbone.model.generate(  # pyright: ignore
        input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=max_new_tokens, do_sample=False, use_cache=False
    )
    return backbone.tokenizer.decode(output[0, tokens.shape[1] :], skip_special_tokens=True)  # pyright: ignore


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_greedy_text_is_that_of_transformers_one_by_one(backbone: Backbone, batch_size: int) -> None:
    expected = [one_by_one(backbone, prompt, 12) for prompt in PROMPTS]
    assert len(set(expected)) > 3
    found = generate(backbone, PROMPTS, max_new_tokens=12, batch_size=batch_size, stop_at_line_end=False)
    assert found == expected


def test_answers_are_in_the_order_of_the_prompts_and_batches_are_told(llama: Backbone) -> None:
    told: list[int] = []
    found = generate(llama, PROMPTS, max_new_tokens=3, batch_size=4, stop_at_line_end=False, on_batch=told.append)
    backwards = generate(llama, PROMPTS[::-1], max_new_tokens=3, batch_size=4, stop_at_line_end=False)
    assert found == backwards[::-1]
    assert told == [4, 2]


def test_no_prompts_no_answers(llama: Backbone) -> None:
    assert generate(llama, [], max_new_tokens=3, batch_size=4) == []


def test_an_empty_prompt_is_refused_where_the_tokenizer_opens_with_nothing(llama: Backbone) -> None:
    bare: Any = copy.deepcopy(llama.tokenizer)
    bare.backend_tokenizer.post_processor = processors.Sequence([])
    assert bare("")["input_ids"] == []
    with pytest.raises(InputError, match="prompt: an empty prompt"):
        generate(Backbone(llama.model, bare, "bare"), ["x", ""], max_new_tokens=3, batch_size=4)
    assert len(generate(llama, ["x", ""], max_new_tokens=3, batch_size=4)) == 2  # `<s>` is enough to go on from


def scripted(follows: Mapping[str, str]) -> Backbone:
    """A Llama whose next token depends on the last one alone, as `follows` says; every text in it is one token."""
    tokenizer = tiny_tokenizer()

    def token(text: str) -> int:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportAssignmentType]
        assert len(ids) == 1, f"{text!r} is not one token"
        return ids[0]

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=VOCABULARY,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model: Any = LlamaForCausalLM(config).requires_grad_(False).eval()
    layer = model.model.layers[0]
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()
    model.model.embed_tokens.weight.copy_(torch.eye(VOCABULARY))
    model.lm_head.weight.zero_()
    for text, following in follows.items():
        model.lm_head.weight[token(following), token(text)] = 1.0
    return Backbone(model, tokenizer, "scripted")


SCRIPT = {
    "q": " ", " ": "x", "x": "y", "y": "\n", "\n": "x",  # a blank, an answer, a line end, and on and on
    "r": "\n",  # a line end first: the answer has not begun
    "s": "t", "t": "</s>", "</s>": "x",  # an end token, after which nothing counts
    "k": "l", "l": "k",  # never ends
}  # fmt: skip


def test_an_answer_ends_at_its_first_line_end_after_it_has_begun() -> None:
    backbone = scripted(SCRIPT)
    found = generate(backbone, ["q", "r", "as", "k"], max_new_tokens=6, batch_size=4)
    assert found == [" xy\n", "\nxy\n", "t", "lklklk"]


def test_without_the_rule_an_answer_ends_at_the_end_token_or_the_limit_only() -> None:
    backbone = scripted(SCRIPT)
    found = generate(backbone, ["q", "r", "as", "k"], max_new_tokens=6, batch_size=4, stop_at_line_end=False)
    assert found == [" xy\nxy", "\nxy\nxy", "t", "lklklk"]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_max_new_tokens_is_the_longest_answer(limit: int) -> None:
    assert generate(scripted(SCRIPT), ["k"], max_new_tokens=limit, batch_size=1) == ["lklkl"[:limit]]


def test_a_row_that_has_ended_does_not_end_the_others() -> None:
    backbone = scripted(SCRIPT)
    together = generate(backbone, ["s", "q", "k", "r"], max_new_tokens=5, batch_size=4)
    alone = [generate(backbone, [prompt], max_new_tokens=5, batch_size=1)[0] for prompt in ("s", "q", "k", "r")]
    assert together == alone == ["t", " xy\n", "lklkl", "\nxy\n"]


def test_a_models_own_sampling_settings_do_not_steer_the_answer() -> None:
    """Published models carry a repetition penalty, a temperature, extra end tokens; greedy means the likeliest token."""
    backbone = tiny_backbone("llama")
    expected = generate(backbone, PROMPTS, max_new_tokens=12, batch_size=3, stop_at_line_end=False)
    own = backbone.model.generation_config
    assert own is not None
    own.repetition_penalty, own.no_repeat_ngram_size = 9.0, 1
    own.do_sample, own.temperature, own.top_k = True, 5.0, 3
    assert generate(backbone, PROMPTS, max_new_tokens=12, batch_size=3, stop_at_line_end=False) == expected
    assert backbone.model.generation_config is own
    assert own.repetition_penalty == 9.0
