"""The errors that Pomona raises on purpose: each names the file, the field, the value, and the fix.

Messages are written with the options of the command line (`--output`). In Python they name the arguments (`output`) instead:
`spoken` translates, unless the program was called from the command line.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from pomona.plain_text import visible

_LONGEST_VALUE = 120

_ARGUMENTS = {
    "adapter": "adapters",
    "column": "columns",
    "decode": "decoding",
    "for": "target",
    "force": "force=True",
    "from": "start",
    "metric": "metrics",
    "resume": "resume=True",
    "set": "overrides",
    "template-argument": "template_arguments",
}
"""Options whose argument in Python has another name, or takes no value."""

# A command stays as it is: one between backticks, or from `pomona VERB` on.
_COMMAND_OR_OPTION = re.compile(
    r"`[^`]*`|\bpomona [a-z][a-z-]* .*|(?<![\w-])--for (?P<target>\w[\w.]*)|(?<![\w-])--(?P<option>[a-z][a-z-]+)"
)

_called_from = "python"


@contextlib.contextmanager
def command_line() -> Iterator[None]:
    """Within the block messages name the options of the command line."""
    global _called_from
    before, _called_from = _called_from, "command line"
    try:
        yield
    finally:
        _called_from = before


def spoken(text: str) -> str:
    """A message in the words of the caller: `--output` is `output` in Python, `--resume` is `resume=True`."""
    return text if _called_from == "command line" else _COMMAND_OR_OPTION.sub(_argument, text)


def _argument(found: re.Match[str]) -> str:
    if found["target"] is not None:
        return f'target="{found["target"]}"'
    option = found["option"]
    if option is None:
        return found[0]
    name = _ARGUMENTS.get(option, option.replace("-", "_"))
    alone = found[0] == found.string or "=" in name  # a field that stands by itself needs no marks
    return name if alone else f"`{name}`"


class PomonaError(Exception):
    """Something that a user can fix, said in one line: file, field, problem, value, fix.

    Args:
        problem: what is wrong, without a full stop.
        file: the file or folder at fault; a line number may follow it (`data.jsonl:17`).
        field: the field, option (`--base`), tensor or module at fault.
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
        named = None if field is None else spoken(field)
        place = "".join(f"{part}: " for part in (file, named) if part is not None)
        shown = "" if value is ... else f" (got {_shorten(repr(value))})"
        advice = f". {spoken(fix)}." if fix else ""
        super().__init__(visible(" ".join(f"{place}{spoken(problem)}{shown}{advice}".split())))


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
