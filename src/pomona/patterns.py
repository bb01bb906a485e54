"""Regular expressions that others wrote, matched against the names of modules in a time that has a limit.

A short expression can take longer than the age of the universe: Python's `re` tries every way in which repeats and alternatives
can share a text, and holds the interpreter while it does. So what cannot be shown to be quick runs in a process of its own, which
the system ends. See ADR 0057.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from pomona import match_names
from pomona.errors import InputError

SECONDS = 5.0
"""Of a processor's time that the expressions of one field may take, on all names together."""
LONGEST = 10_000
"""Characters of an expression."""
_BUDGET = 5e6  # ways to try, which take about a tenth of a second
_REPEATED_GROUP = re.compile(r"\)[*+{]|\\[1-9]|\(\?P=|\(\?\(")
_REPEAT = re.compile(r"[*+{]")
_CHOICE = re.compile(r"[|?]")


class TooSlowError(InputError):
    """Expressions take too long; the message names the field, and not yet the file."""


def check_expression(expression: object) -> str | None:
    """Why a text is no regular expression that can be used; None where it is one."""
    if not isinstance(expression, str) or not expression.isprintable():
        return "is not a regular expression"
    if len(expression) > LONGEST:
        return f"is not a regular expression of at most {LONGEST:,} characters"
    try:
        re.compile(expression)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        return f"is not a regular expression: {error}"
    return None


class Expressions:
    """Some expressions, of which the first that matches a name counts. What was matched is remembered.

    Args:
        expressions: each compiles.
        field: of the config, for errors.
        full: an expression must match the whole name, and not only its beginning.
    """

    def __init__(self, expressions: Iterable[str], field: str, *, full: bool = False) -> None:
        self._expressions = list(expressions)
        self._field = field
        self._full = full
        self._found: dict[str, tuple[int, str | None] | None] = {}

    def prepare(self, names: Iterable[str]) -> list[int]:
        """Match many names at once, which is quicker than one after the other.

        Returns:
            The positions of the expressions that match none of them.

        Raises:
            InputError: it takes longer than `SECONDS`.
        """
        wanted = list(dict.fromkeys(names))
        found, unused = self._match(wanted) if self._expressions else ([None] * len(wanted), [])
        self._found.update(zip(wanted, found, strict=True))
        return unused

    def first(self, name: str) -> int | None:
        """The position of the first expression that matches; None where none does.

        Raises:
            InputError: it takes longer than `SECONDS`.
        """
        return None if (found := self._of(name)) is None else found[0]

    def layer(self, name: str) -> int | None:
        """The number in the group `layer` of the first expression that matches."""
        found = self._of(name)
        return int(found[1]) if found is not None and found[1] is not None else None

    def _of(self, name: str) -> tuple[int, str | None] | None:
        if name not in self._found:
            self.prepare([name])
        return self._found[name]

    def _match(self, names: Sequence[str]) -> tuple[match_names.Hits, list[int]]:
        if _ways(self._expressions, names) <= _BUDGET:
            return match_names.match_names(self._expressions, names, full=self._full)
        given = {"expressions": self._expressions, "names": names, "full": self._full, "seconds": math.ceil(SECONDS)}
        command = [sys.executable, "-I", "-S", str(Path(match_names.__file__))]
        try:
            done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=4 * SECONDS, check=True)
        except subprocess.SubprocessError as error:
            raise self._too_slow(len(names)) from error
        found, unused = json.loads(done.stdout)
        return [None if one is None else (one[0], one[1]) for one in found], unused

    def _too_slow(self, names: int) -> TooSlowError:
        several = f"{len(self._expressions):,} expressions take" if len(self._expressions) > 1 else "the expression takes"
        problem = f"{several} more than {SECONDS:g} seconds on the names of {names:,} modules"
        fix = "Write it without a repeat within a repeat, or name the modules in a list"
        return TooSlowError(problem, field=self._field, value=self._expressions[0], fix=fix)


def _ways(expressions: Sequence[str], names: Sequence[str]) -> float:
    """At most so many ways to try on all names; infinite where the text alone does not show it."""
    longest = max(map(len, names), default=0)
    total = 0.0
    for expression in expressions:
        if _REPEATED_GROUP.search(expression):
            return float("inf")
        repeats, choices = len(_REPEAT.findall(expression)), len(_CHOICE.findall(expression))
        if repeats > 4 or choices > 20:
            return float("inf")
        total += max(longest, 1) ** repeats * 2.0**choices
    return total * len(names)
