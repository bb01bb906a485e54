"""The errors that Pomona raises on purpose: each names the file, the field, the value, and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from pomona.plain_text import visible

_LONGEST_VALUE = 120


class PomonaError(Exception):
    """Something that a user can fix, said in one line: file, field, problem, value, fix.

    Args:
        problem: what is wrong, without a full stop.
        file: the file or folder at fault; a line number may follow it (`data.jsonl:17`).
        field: the field, option, tensor or module at fault.
        value: the bad value; shown by `repr`, shortened.
        fix: what to do about it, as a sentence without its full stop.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        problem: str,
        *,
        file: Path | str | None = None,
        field: str | None = None,
        value: object = ...,
        fix: str | None = None,
    ) -> None:
        place = "".join(f"{part}: " for part in (file, field) if part is not None)
        shown = "" if value is ... else f" (got {_shorten(repr(value))})"
        advice = f". {fix}." if fix else ""
        super().__init__(visible(" ".join(f"{place}{problem}{shown}{advice}".split())))


class InputError(PomonaError):
    """A wrong input: a file, a recipe, an option. Raised before any long work starts; the CLI exits with 2."""

    exit_code: ClassVar[int] = 2


class MissingPackageError(InputError):
    """An optional package is needed and not installed."""


def suggest(wrong: str, known: Iterable[str]) -> str:
    """One line of advice for a name that is not known: the nearest known name, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, n=1)
    return (f"Did you mean {near[0]!r}? " if near else "") + f"Known: {', '.join(names) or 'none'}"


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
