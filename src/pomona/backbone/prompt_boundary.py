"""The boundary of prompt and completion in tokens: those of the whole text, without the ones that the tokenizer puts after a text.

The prompt keeps the tokens that it has by itself, which are all that generation can give. Where they begin the whole text's
tokens, the rest of those is the completion. Where a token of the whole text lies across the boundary, the text is split there:
the completion gets the tokens that it has after another text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBES = ("a", "1", ".", "的")
_ANCHORS = ("\n", ".", "a", "1", "的")
_appended: WeakKeyDictionary[PreTrainedTokenizerBase, int] = WeakKeyDictionary()


def plain_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The text's tokens, without special tokens that the tokenizer adds."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]


def opening_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The text's tokens with the special ones that open a text, and without those that would close it: it goes on."""
    tokens: list[int] = tokenizer(text, add_special_tokens=True)["input_ids"]  # pyright: ignore[reportAssignmentType]
    if tokenizer not in _appended:
        _appended[tokenizer] = _count_appended(tokenizer)
    return tokens[: len(tokens) - _appended[tokenizer]]


def tokens_apart(
    tokenizer: PreTrainedTokenizerBase, before: str, after: str, *, special: bool, start: list[int] | None = None
) -> tuple[list[int], list[int]]:
    """The tokens of a text in two parts, split at the boundary by the rule above.

    Args:
        tokenizer: of the model.
        before: the prompt.
        after: the completion.
        special: whether the tokenizer's own special tokens open the text.
        start: the tokens of `before`, where they are known.
    """
    tokens = opening_tokens if special else plain_tokens
    start = tokens(tokenizer, before) if start is None else start
    rest = _rest(start, tokens(tokenizer, before + after))
    return start, rest if rest or not after.strip() else _following(tokenizer, after)


def _following(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The text's tokens where another text stands before it: tokenizers that open a text with a space put none here."""
    alone = plain_tokens(tokenizer, text)
    rests = []
    for anchor in _ANCHORS:
        start = plain_tokens(tokenizer, anchor)
        rest = _rest(start, plain_tokens(tokenizer, anchor + text)) if start else []
        if rest == alone:
            break
        if rest:
            rests.append(rest)
    else:
        return rests[0] if rests else alone
    return alone


def _rest(start: list[int], whole: list[int]) -> list[int]:
    """What follows `start` in `whole`; nothing where `whole` does not begin with it."""
    return whole[len(start) :] if whole[: len(start)] == start else []


def _count_appended(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many special tokens the tokenizer puts after a text, such as T5's `</s>`."""
    for probe in _PROBES:
        plain = plain_tokens(tokenizer, probe)
        whole: list[int] = tokenizer(probe, add_special_tokens=True)["input_ids"]  # pyright: ignore[reportAssignmentType]
        for place in range(len(whole) - len(plain) + 1):
            if plain and whole[place : place + len(plain)] == plain:
                return len(whole) - len(plain) - place
    return 0
