"""Read the fields of a row; errors give the value found and the value expected."""

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
    """An unusable field of a row.

    Args:
        field: the field's name.
        problem: the value found and the value expected.
        fix: the advice; None: the row itself must be fixed.
    """

    def __init__(self, field: str, problem: str, fix: str | None = None) -> None:
        self.field = field
        self.problem = problem
        self.fix = fix
        super().__init__(f"{field}: {problem}")


def text_field(row: Mapping[str, object], field: str) -> str:
    """The row's text in `field`, stripped.

    Raises:
        FieldError: the field is missing, not a string, or blank.
    """
    return text(require(row, field, "a text"), field)


def text_list_field(row: Mapping[str, object], field: str) -> tuple[str, ...]:
    """The row's texts in `field`, each stripped, in their order, without repetitions.

    Raises:
        FieldError: the field is missing, not a list, or empty; or an entry is not a string or is blank.
    """
    return text_list(require(row, field, "a list of texts"), field)


def references_field(row: Mapping[str, object], field: str) -> tuple[str, ...]:
    """The correct answers of a row: the text in `field`, then the list in `references`; one of the two may be missing.

    Raises:
        FieldError: both are missing, or one is unusable.
    """
    others = text_list_field(row, "references") if row.get("references") is not None else ()
    if others and row.get(field) is None:
        return others
    return tuple(dict.fromkeys((text_field(row, field), *others)))


def id_field(row: Mapping[str, object], default: str) -> str:
    """The row's own `id` as a string, or `default` if it has none.

    Raises:
        FieldError: the id is neither a string nor a whole number.
    """
    value = row.get("id", default)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise FieldError("id", f"is {shown(value)}: a string or a whole number is expected")
    return str(value)


def require(row: Mapping[str, object], field: str, expected: str) -> object:
    """The value of `field`.

    Raises:
        FieldError: the row has no such field; the message names the row's fields and the option that maps a column.
    """
    if field not in row:
        names = ", ".join(map(str, row)) or "no fields"
        listed = names if len(names) <= _LONGEST_NAMES else f"{names[: _LONGEST_NAMES - 3]}..."
        raise FieldError(field, f"is missing: {expected} is expected; the row has {listed}", _mapping(field, list(map(str, row))))
    return row[field]


def _mapping(field: str, columns: list[str]) -> str | None:
    """How to map a column to the field; the example uses the column with the nearest name."""
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
        FieldError: the value is not a string, or is blank.
    """
    if not isinstance(value, str):
        raise FieldError(field, f"is {shown(value)}: a text is expected")
    stripped = value.strip()
    if not stripped:
        raise FieldError(field, "is blank: a text is expected")
    return stripped


def text_list(value: object, field: str) -> tuple[str, ...]:
    """`value` as texts, each stripped, without repetitions; `field` names it in the error.

    Raises:
        FieldError: the value is not a list or is empty, or an entry is not a string or is blank.
    """
    if not isinstance(value, list | tuple) or not value:
        raise FieldError(field, f"is {shown(value)}: a list of one or more texts is expected")
    return tuple(dict.fromkeys(text(entry, f"{field}[{index}]") for index, entry in enumerate(value)))


def one_line(text: str) -> str:
    """`text` with every run of whitespace replaced by one space: an answer is one line, like the result of a task's `parse`."""
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
    # reprlib shortens while it formats: a value may have megabytes, and lists may be nested as deeply as the JSON reader allows.
    text = _SHORT.repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
