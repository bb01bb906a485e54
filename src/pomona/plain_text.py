"""Text that a terminal, a log or a page can show as it is: no character acts on the terminal or turns the reading direction."""

from __future__ import annotations

import re

# Control characters, halves of surrogate pairs, line and paragraph separators, embeddings, overrides and isolates of the
# bidirectional algorithm, the byte order mark and the invisible tags. Joiners stay: Persian and emoji need them.
_ACTING = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f"
_WITHIN_LINES = re.compile(f"[{_ACTING}]")
_ANYWHERE = re.compile(f"[{_ACTING}\t\n]")


def visible(text: str, *, lines: bool = False) -> str:
    r"""The text with every character that acts on a terminal written as its escape (`\u001b`), as JSON writes it too.

    Args:
        text: of any origin: a file's name, a model's answer, an error of a library.
        lines: keep line ends and tabs, for text of several lines.
    """
    return (_WITHIN_LINES if lines else _ANYWHERE).sub(_escape, text)


def is_plain(text: str) -> bool:
    """Whether a name stands on one line and holds no character that acts on a terminal."""
    return _ANYWHERE.search(text) is None


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass").hex()  # two for a character beyond 16 bits, as JSON has it
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
