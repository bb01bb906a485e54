"""Read an answer from generated text. No function here raises an error for a string."""

from __future__ import annotations

from collections.abc import Iterable


def first_line(text: str) -> str:
    """The first line of `text` that is not blank, stripped; "" if there is none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def before_stop(text: str, stop: Iterable[str]) -> str:
    """The text before the first of the `stop` texts, stripped, also of leading whitespace.

    Args:
        text: any string.
        stop: texts that end an answer, none of them empty.
    """
    answer = text.lstrip()
    ends = (found for one in stop if (found := answer.find(one)) >= 0)
    return answer[: min(ends, default=len(answer))].strip()
