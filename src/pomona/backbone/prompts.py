"""From an example to tokens: its prompt in the base or the chat form, made to fit, and the completion that closes it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pomona.data.example import Example, Turn
from pomona.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prompt:
    """A prompt as tokens, and how many of its tokens were left out to make it fit."""

    tokens: tuple[int, ...]
    cut: int = 0


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, example: Example, room: int) -> Prompt:
    """The example's prompt in at most `room` tokens.

    A prompt that is too long loses the end of its body (the document, the context), so that what frames it stays whole. Where
    there is no body, or not even the frame fits, it loses its beginning, but for the token that opens a text.

    Args:
        tokenizer: adds its special tokens in the base form; its chat template renders the chat form.
        example: its prompt, and the history in the chat form.
        room: tokens, >= 1.

    Raises:
        InputError: the prompt is empty; the tokenizer has no chat template, or one that cannot render the conversation.
    """
    tokens = _encoded(tokenizer, example)
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

    In the chat form these are the tokens of the conversation with its answer after those of the prompt.

    Raises:
        InputError: the chat template does not go on from its prompt, so that no completion can be told from it.
    """
    if example.history is None:
        return _with_end(tokenizer, _ids(tokenizer, example.target, special=False))
    before = _rendered(tokenizer, example)
    whole = _apply(tokenizer, [*_turns(example), Turn("assistant", example.target)], opens_answer=False)
    if not whole.startswith(before):
        raise InputError(
            f"example {example.id!r}: the model's chat template changes what stands before an answer",
            field="form",
            value="chat",
            mend="Use the task's base form, or a model whose template only adds to a conversation",
        )
    written = whole[len(before) :]
    start, tokens = _ids(tokenizer, before, special=False), _ids(tokenizer, whole, special=False)
    # Some tokenizers open a text with a space: an answer by itself would get one that it has not after the prompt.
    tokens = tokens[len(start) :] if tokens[: len(start)] == start else _ids(tokenizer, written, special=False)
    place = written.find(example.target)
    closing = _ids(tokenizer, written[place + len(example.target) :] if place >= 0 else written, special=False)
    ends = [place for place, token in enumerate(closing) if _is_special(tokenizer, token)]
    if not ends:
        return _with_end(tokenizer, tokens)
    return tuple(tokens[: len(tokens) - (len(closing) - 1 - ends[-1])])


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token by which the chat template ends an answer; None without a template, or where no token of its own ends one."""
    if not tokenizer.chat_template:
        return None
    last = completion_tokens(tokenizer, Example("probe", "Hello.", "Hello.", ("Hello.",), "", history=()))[-1:]
    return last[0] if last and _is_special(tokenizer, last[0]) else None


def _encoded(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[int]:
    if example.history is None:
        return _ids(tokenizer, example.prompt, special=True)
    return _ids(tokenizer, _rendered(tokenizer, example), special=False)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool) -> list[int]:
    return tokenizer(text, add_special_tokens=special)["input_ids"]  # pyright: ignore[reportReturnType]


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
    tokens = _ids(tokenizer, body, special=False)
    kept = tokens[: max(0, len(tokens) - excess)]
    length = min(len(str(tokenizer.decode(kept))), len(body) - 1) if kept else 0
    shorter = body[:length].rstrip()
    prompt = example.prompt[:start] + shorter + example.prompt[end:]
    return dataclasses.replace(example, prompt=prompt, body=(start, start + len(shorter)))


def _turns(example: Example) -> list[Turn]:
    return [*(example.history or ()), Turn("user", example.prompt)]


def _rendered(tokenizer: PreTrainedTokenizerBase, example: Example) -> str:
    return _apply(tokenizer, _turns(example), opens_answer=True)


def _apply(tokenizer: PreTrainedTokenizerBase, turns: list[Turn], *, opens_answer: bool) -> str:
    """The conversation as the model's own template writes it."""
    if not tokenizer.chat_template:
        raise InputError(
            "the model has no chat template",
            field="form",
            value="chat",
            mend="Use the base form, or a model that was tuned to chat",
        )
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opens_answer))
    except Exception as error:  # a template is a program of the model's publisher: it may raise what it likes
        raise InputError(
            f"the model's chat template refuses the conversation: {' '.join(str(error).split())}",
            field="form",
            value="chat",
            mend="Leave the system turn out, or let user and assistant take turns",
        ) from error
