"""Thoughts that a model writes before its answer: `<think> ... </think>` and its like. What follows them is the answer."""

from __future__ import annotations

TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
)
"""(opening, closing) as published models write them."""


def answer_start(text: str) -> int | None:
    """Where the answer begins in what a model wrote, behind thoughts and white space; None where the thoughts have not ended.

    Thoughts count only where the text begins with them: a tag within an answer is text.
    """
    begins = _behind_space(text, 0)
    for opening, closing in TAGS:
        if text.startswith(opening, begins):
            end = text.find(closing, begins)
            return None if end < 0 else _behind_space(text, end + len(closing))
    return begins


def after_thoughts(text: str) -> str:
    """The answer in what a model wrote; "" where its thoughts have not ended; text without thoughts stands as it is."""
    start = answer_start(text)
    if start is None:
        return ""
    return text[start:] if begins_with_thoughts(text) else text


def begins_with_thoughts(text: str) -> bool:
    """Whether the first thing in a text is an opening tag."""
    return text.lstrip().startswith(tuple(opening for opening, _ in TAGS))


def opens_thoughts(text: str) -> bool:
    """Whether the last thing in a text is an opening tag."""
    return text.rstrip().endswith(tuple(opening for opening, _ in TAGS))


def _behind_space(text: str, start: int) -> int:
    return len(text) - len(text[start:].lstrip())
