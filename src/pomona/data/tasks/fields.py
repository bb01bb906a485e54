"""Reading the fields of a row, with errors that say what was found and what is expected."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping

from pomona.errors import InputError

_LONGEST_SHOWN = 40
_LONGEST_NAMES = 120

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _LONGEST_SHOWN


class FieldError(ValueError):
    """A row's field that cannot be used.

    Args:
        field: the field's name.
        problem: what was found and what is expected.
        fix: what to do about it; None: the row is at fault.
    """

    def __init__(self, field: str, problem: str, fix: str | None = None) -> None:
        self.field = field
        self.problem = problem
        self.fix = fix
        super().__init__(f"{field}: {problem}")


def text_field(row: Mapping[str, object], field: str) -> str:
    """The row's text in `field`, stripped.

    Raises:
        FieldError: it is missing, not a string, or blank.
    """
    return text(require(row, field, "a text"), field)


def text_list_field(row: Mapping[str, object], field: str) -> tuple[str, ...]:
    """The row's texts in `field`, each stripped; repeated ones once, in the order in which they stand.

    Raises:
        FieldError: it is missing, not a list, empty, or an entry is not a string or is blank.
    """
    return text_list(require(row, field, "a list of texts"), field)


def references_field(row: Mapping[str, object], field: str) -> tuple[str, ...]:
    """The right answers of a row: the text in `field`, the list in `references`, or both; the text in `field` is the first.

    Raises:
        FieldError: neither is there, or what is there cannot be used.
    """
    others = text_list_field(row, "references") if row.get("references") is not None else ()
    if others and row.get(field) is None:
        return others
    return tuple(dict.fromkeys((text_field(row, field), *others)))


def id_field(row: Mapping[str, object], default: str) -> str:
    """The row's own `id` as a string, or `default` where it has none.

    Raises:
        FieldError: the id is neither a string nor a whole number.
    """
    value = row.get("id", default)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise FieldError("id", f"is {shown(value)}: a string or a whole number is expected")
    return str(value)


def require(row: Mapping[str, object], field: str, expected: str) -> object:
    """What stands in `field`.

    Raises:
        FieldError: the row has no such field; the message names those that it has, and how to name the column that is meant.
    """
    if field not in row:
        names = ", ".join(map(str, row)) or "no fields"
        listed = names if len(names) <= _LONGEST_NAMES else f"{names[: _LONGEST_NAMES - 3]}..."
        raise FieldError(field, f"is missing: {expected} is expected; the row has {listed}", _mapping(field, list(map(str, row))))
    return row[field]


def _mapping(field: str, columns: list[str]) -> str | None:
    """How to say which column holds the field; the one with the nearest name stands in the example."""
    free = {name.casefold(): name for name in columns if name not in ("id", "group") and len(name) <= _LONGEST_SHOWN}
    if not free:
        return None
    near = difflib.get_close_matches(field.casefold(), free, n=1, cutoff=0.5)
    column = free[near[0]] if near else "COLUMN"
    asked = f"Did you mean the column {column!r}? " if near else ""
    return f"{asked}Say which column it is: data.columns: {{{field}: {column}}} in a recipe, --column {field}={column} with --data"


def text(value: object, field: str) -> str:
    """`value` as a text, stripped; `field` names it in the error.

    Raises:
        FieldError: it is not a string, or it is blank.
    """
    if not isinstance(value, str):
        raise FieldError(field, f"is {shown(value)}: a text is expected")
    stripped = value.strip()
    if not stripped:
        raise FieldError(field, "is blank: a text is expected")
    return stripped


def text_list(value: object, field: str) -> tuple[str, ...]:
    """`value` as texts, each stripped and repeated ones once; `field` names it in the error.

    Raises:
        FieldError: it is not a list, is empty, or an entry is not a string or is blank.
    """
    if not isinstance(value, list | tuple) or not value:
        raise FieldError(field, f"is {shown(value)}: a list of one or more texts is expected")
    return tuple(dict.fromkeys(text(entry, f"{field}[{index}]") for index, entry in enumerate(value)))


def one_line(text: str) -> str:
    """`text` with every run of whitespace made one space: an answer is one line, which is what a task's `parse` can return."""
    return " ".join(text.split())


def check_at_least(field: str, value: int, minimum: int) -> None:
    """Refuse a whole number under `minimum`.

    Raises:
        InputError: `value` is not a whole number or is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InputError(f"a whole number of at least {minimum} is expected", field=field, value=value)


def shown(value: object) -> str:
    """A bad value, short enough for a message."""
    if value is None:
        return "null"
    if isinstance(value, list | tuple | dict) and not value:
        return "empty"
    # Shortened before it is written out: a value may have megabytes, and lists as deep as the reader of JSON allows.
    text = _SHORT.repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
