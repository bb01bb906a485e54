"""The joint of prompt and completion, for every kind of tokenizer: tiny real ones of each kind, trained here.

The law: prompt and completion together are the tokens of the whole text, without special tokens that the tokenizer puts after a
text; and training, scoring and generation see one prompt.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pomona.backbone.batches import encode
from pomona.backbone.prompt_boundary import opening_tokens, plain_tokens, tokens_apart
from pomona.backbone.prompts import completion_tokens, prompt_tokens
from pomona.data import Example

LINES = ["the cat sat on the mat. is it a hat? no, the hat is on the cat", "Answer: yes", "Summary: a cat", "12 3 45"]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
BYTES = [f"<0x{number:02X}>" for number in range(256)]
BEFORE, BOTH, AFTER = ("<s> $A", "<s> $A </s>", "$A </s>")
SPACED = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def trained(model: Any, trainer: Any, opens: str | None = None, **parts: Any) -> Any:
    """A tokenizer of some parts, which puts special tokens where `opens` says."""
    made = Tokenizer(model)
    for name, part in parts.items():
        setattr(made, name, part)
    made.train_from_iterator(LINES, trainer)
    if opens:
        made.post_processor = processors.TemplateProcessing(
            single=opens, special_tokens=[one for one in (("<s>", 2), ("</s>", 3)) if one[0] in opens]
        )
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def bpe(size: int = 330, **more: Any) -> Any:
    return trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False, **more)


def byte_level(opens: str | None, prefix: bool = False) -> Any:
    return trained(
        models.BPE(),
        bpe(initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
        opens,
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=prefix),
        decoder=decoders.ByteLevel(),
    )


def metaspace(scheme: Any, opens: str | None) -> Any:
    return trained(
        models.BPE(unk_token="<unk>"),
        bpe(120),
        opens,
        pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme=scheme),
        decoder=decoders.Metaspace(prepend_scheme=scheme),
    )


def llama_2(opens: str | None) -> Any:
    """`Prepend` and byte fallback, no pre-tokenizer: every text begins with a space mark, also one that begins with a space."""
    made = trained(
        models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True),
        trainers.BpeTrainer(vocab_size=420, special_tokens=[*SPECIAL, *BYTES], show_progress=False, max_token_length=6),
        opens,
        normalizer=SPACED,
        pre_tokenizer=pre_tokenizers.Split("▁", "merged_with_next"),  # while it is trained: no token goes beyond a word
        decoder=decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    )
    made.backend_tokenizer.pre_tokenizer = None
    return made


def unigram(opens: str | None) -> Any:
    return trained(
        models.Unigram(),
        trainers.UnigramTrainer(vocab_size=100, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False),
        opens,
        normalizer=normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
        pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="always"),
        decoder=decoders.Metaspace(prepend_scheme="always"),
    )


def word_piece(opens: str | None) -> Any:
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    return trained(
        models.WordPiece(unk_token="<unk>"),
        trainer,
        opens,
        normalizer=normalizers.BertNormalizer(),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(),
    )


KINDS: dict[str, Callable[[], Any]] = {
    "byte-level BPE (GPT-2)": lambda: byte_level(None),
    "byte-level BPE, a space first": lambda: byte_level(None, prefix=True),
    "byte-level BPE with an opening token (Llama 3)": lambda: byte_level(BEFORE),
    "byte-level BPE with both": lambda: byte_level(BOTH),
    "BPE with Prepend and byte fallback (Llama 2)": lambda: llama_2(BEFORE),
    "BPE with Prepend and both": lambda: llama_2(BOTH),
    "BPE with Metaspace, first": lambda: metaspace("first", BEFORE),
    "BPE with Metaspace, always": lambda: metaspace("always", BOTH),
    "BPE with Metaspace, never": lambda: metaspace("never", None),
    "Unigram with an end token (T5)": lambda: unigram(AFTER),
    "Unigram": lambda: unigram(None),
    "WordPiece with both (BERT)": lambda: word_piece(BOTH),
    "tiny": tiny_tokenizer,
}


@functools.cache
def made(kind: str) -> Any:
    return KINDS[kind]()


def of(prompt: str, target: str) -> Example:
    return Example("one", prompt, target, (target.strip(),), prompt)


def whole_text(tokenizer: Any, text: str) -> list[int]:
    """The whole text's tokens, without a special token behind them: the oracle, which knows how the tokenizer was made."""
    tokens = tokenizer(text)["input_ids"]
    appended = "</s>" in str(tokenizer.backend_tokenizer.post_processor)
    return tokens[:-1] if appended else tokens


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("prompt", "target"),
    [
        ("the cat.\n\nSummary:", " a cat"),
        ("is it a hat?\nAnswer:", " no"),
        ("the mat", "\n12 3"),
        ("Answer:", "   yes"),
        ("a", " b"),
    ],
)
def test_prompt_and_completion_are_the_whole_text(kind: str, prompt: str, target: str) -> None:
    tokenizer = made(kind)
    start, completion = prompt_tokens(tokenizer, of(prompt, target), 1000).tokens, completion_tokens(tokenizer, of(prompt, target))
    assert completion[-1] == tokenizer.eos_token_id
    assert [*start, *completion[:-1]] == whole_text(tokenizer, prompt + target)
    assert list(start) == whole_text(tokenizer, prompt)  # and so generation's prompt is the training's
    assert tokenizer.eos_token_id not in (*start, *completion[:-1])
    (encoded,), _ = encode([of(prompt, target)], tokenizer, 1000)
    assert (encoded.tokens, encoded.completion_start) == ((*start, *completion), len(start))


TEXT = st.text(st.sampled_from("thecaonmisy .,?:12\n"), min_size=1, max_size=30)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(TEXT.filter(str.strip), TEXT.filter(str.strip), st.sampled_from([" ", "\n", "  ", ""]))
@case("th", "e", "")
@case("1", "11", "")
def test_any_two_texts(kind: str, prompt: str, answer: str, between: str) -> None:
    """Where no token lies across the joint the tokens are the whole text's; else the prompt keeps its own, and nothing is lost."""
    tokenizer, prompt, target = made(kind), prompt.rstrip(), between + answer.strip()
    start, completion = tokens_apart(tokenizer, prompt, target, special=True)
    whole = whole_text(tokenizer, prompt + target)
    assert start == whole_text(tokenizer, prompt)
    if whole[: len(start)] == start and len(whole) > len(start):
        assert completion == whole[len(start) :]
    else:
        said = tokenizer.decode(completion, skip_special_tokens=True)
        alone = tokenizer.decode(plain_tokens(tokenizer, target), skip_special_tokens=True)  # an unknown word counts as special
        assert "".join(said.split()) == "".join(alone.split())
        assert not tokenizer.convert_ids_to_tokens(completion)[0].startswith(("▁", "Ġ")) or between.startswith(" ")


def test_a_first_token_that_never_follows_a_prompt_is_not_trained_on() -> None:
    """By itself " yes" has two space marks with `Prepend`: the first answer token would be one that no text goes on with."""
    tokenizer = made("BPE with Prepend and byte fallback (Llama 2)")
    alone = tokenizer.convert_ids_to_tokens(plain_tokens(tokenizer, " yes"))
    assert "".join(alone).startswith("▁▁")
    found = tokenizer.convert_ids_to_tokens(list(completion_tokens(tokenizer, of("Answer:", " yes"))))
    assert "".join(found) == "▁yes</s>"


@pytest.mark.parametrize("kind", [name for name in KINDS if "both" in name or "end token" in name])
def test_what_a_tokenizer_puts_after_a_text_is_not_in_a_prompt(kind: str) -> None:
    tokenizer = made(kind)
    assert tokenizer("the cat")["input_ids"][-1] == tokenizer.eos_token_id
    assert opening_tokens(tokenizer, "the cat") == tokenizer("the cat")["input_ids"][:-1]
    long = of("the cat sat on the mat " * 20, " yes")
    for cut in (prompt_tokens(tokenizer, long, 9), prompt_tokens(tokenizer, dataclasses.replace(long, body=(0, 200)), 90)):
        assert cut.cut > 0
        assert tokenizer.eos_token_id not in cut.tokens
