"""Reading an answer out of what a model wrote. Nothing here can raise on a string."""

from __future__ import annotations


def first_line(text: str) -> str:
    """The first line of `text` that is not blank, stripped; "" where there is none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
