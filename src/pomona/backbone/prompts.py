"""From an example to tokens: its prompt in the base or the chat form, made to fit, and the completion that closes it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pomona.backbone.chat_template import answer_text, frame
from pomona.backbone.prompt_boundary import opening_tokens, plain_tokens, tokens_apart
from pomona.data.example import Example
from pomona.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prompt:
    """A prompt as tokens, and how many of its tokens were left out to make it fit."""

    tokens: tuple[int, ...]
    cut: int = 0


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, example: Example, room: int, whole_prompt: list[int] | None = None) -> Prompt:
    """The example's prompt in at most `room` tokens.

    A prompt that is too long loses the end of its body (the document, the context), so that what frames it stays whole. Where
    there is no body, or not even the frame fits, it loses its beginning, but for the token that opens a text.

    Args:
        tokenizer: adds its special tokens in the base form; its chat template renders the chat form.
        example: its prompt, and the history in the chat form.
        room: tokens, >= 1.
        whole_prompt: the prompt's tokens, where they are known.

    Raises:
        InputError: the prompt is empty; the tokenizer has no chat template, or one that cannot render the conversation.
    """
    tokens = _encoded(tokenizer, example) if whole_prompt is None else whole_prompt
    if not tokens:
        raise InputError(f"example {example.id!r}: its prompt is empty, so there is nothing to go on from")
    whole = len(tokens)
    while len(tokens) > room and example.body is not None and example.body[0] < example.body[1]:
        example = _shortened(tokenizer, example, len(tokens) - room)
        tokens = _encoded(tokenizer, example)
    if len(tokens) > room:
        head = tokens[:1] if tokens[0] == tokenizer.bos_token_id and room > 1 else []
        tokens = [*head, *tokens[len(head) - room :]]
    return Prompt(tuple(tokens), whole - len(tokens))


def completion_tokens(tokenizer: PreTrainedTokenizerBase, example: Example) -> tuple[int, ...]:
    """The example's target and the token that ends an answer: the tokenizer's own, or the chat template's end of a turn.

    The tokens are those that the target has after the prompt; `prompt_boundary` says where a text is split.

    Raises:
        InputError: the chat template does not go on from its prompt, so that no completion can be told from it.
    """
    return prompt_and_completion(tokenizer, example)[1]


def prompt_and_completion(tokenizer: PreTrainedTokenizerBase, example: Example) -> tuple[list[int], tuple[int, ...]]:
    """The whole prompt's tokens, and those of `completion_tokens`.

    Raises:
        InputError: the prompt cannot be rendered, or the chat template does not go on from it.
    """
    if example.history is None:
        start, tokens = tokens_apart(tokenizer, example.prompt, example.target, special=True)
        return start, _with_end(tokenizer, tokens)
    found = frame(tokenizer, example)
    start, tokens = tokens_apart(tokenizer, found.prompt, answer_text(tokenizer, example, found.prompt), special=False)
    if not any(_is_special(tokenizer, token) for token in plain_tokens(tokenizer, found.closing)):
        return start, _with_end(tokenizer, tokens)
    last = max((place for place, token in enumerate(tokens) if _is_special(tokenizer, token)), default=len(tokens) - 1)
    return start, tuple(tokens[: last + 1])


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token by which the chat template ends an answer; None without a template, or where no token of its own ends one."""
    if not tokenizer.chat_template:
        return None
    last = completion_tokens(tokenizer, Example("probe", "Hello.", "Hello.", ("Hello.",), "", history=()))[-1:]
    return last[0] if last and _is_special(tokenizer, last[0]) else None


def _encoded(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[int]:
    if example.history is None:
        return opening_tokens(tokenizer, example.prompt)
    return plain_tokens(tokenizer, frame(tokenizer, example).prompt)


def _is_special(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    """Also one that the tokenizer marks as special without a name: in Gemma's the end of a turn is one of thousands."""
    return bool(tokenizer.decode([token])) and not tokenizer.decode([token], skip_special_tokens=True)


def _with_end(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> tuple[int, ...]:
    end: Any = tokenizer.eos_token_id
    return tuple(tokens) if end is None else (*tokens, int(end))


def _shortened(tokenizer: PreTrainedTokenizerBase, example: Example, excess: int) -> Example:
    """The example with at least `excess` tokens off its body's end, and at least one character."""
    assert example.body is not None
    start, end = example.body
    body = example.prompt[start:end]
    # Where a token begins is known from its text alone only roughly: what is left is as long as as many tokens decode to.
    tokens = plain_tokens(tokenizer, body)
    kept = tokens[: max(0, len(tokens) - excess)]
    length = min(len(str(tokenizer.decode(kept))), len(body) - 1) if kept else 0
    shorter = body[:length].rstrip()
    prompt = example.prompt[:start] + shorter + example.prompt[end:]
    return dataclasses.replace(example, prompt=prompt, body=(start, start + len(shorter)))
