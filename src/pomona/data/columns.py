"""Map columns of any name to a task's fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

from pomona.data.formats.rows import Row, place
from pomona.errors import InputError, suggest

_KEYS = ("id", "group")
_JOINED = "[]"
_MOST_NAMES = 30
_LONGEST_NAME = 40


def mapped(rows: Iterable[Row], columns: Mapping[str, str], source: Path | str) -> list[Row]:
    """The rows with each field of `columns` read from the column that it names.

    A column moves: its old name is removed, so that a task does not read it twice. Unnamed columns keep their names, and so do
    columns that only `id` and `group` name. A path with dots leads into objects (`translation.en`) and into each object of a list
    (`answers.text` is the list of the answers' texts); a column whose own name contains the dots takes precedence. A path that
    ends in `[]` joins a list of texts with spaces (`sentences[]`).

    The field `group` works with every task: examples with one group come from one document, so they stay in one split, and
    intervals are clustered by group. If `group` is null, the task's own group is kept.

    Args:
        rows: from a reader.
        columns: task field -> column.
        source: the origin of the rows, for errors.

    Raises:
        InputError: a row lacks the column, `[]` finds no list of texts, or a group is neither a string nor a whole number.
    """
    return [_mapped(row, columns, place(source, row.line)) for row in rows]


def _mapped(row: Row, columns: Mapping[str, str], where: str) -> Row:
    found = {field: _found(row.fields, column, field, where) for field, column in columns.items()}
    moved = {column.removesuffix(_JOINED) for field, column in columns.items() if field not in _KEYS}
    fields = {name: value for name, value in row.fields.items() if name not in moved}
    group = found.pop("group", None)
    return replace(row, fields=fields | found, group=None if group is None else _group(group, where))


def _found(fields: Mapping[str, object], path: str, field: str, where: str) -> object:
    """The value at `path`, joined if the path says so."""
    if path in fields or not path.endswith(_JOINED):
        return _value(fields, path, field, where)
    texts = _value(fields, path.removesuffix(_JOINED), field, where)
    if texts is None:
        return None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(
            "[] joins a list of texts, and this is none", file=where, field=field, value=path, fix=f"Leave {_JOINED} out"
        )
    return " ".join(text.strip() for text in texts)


def _value(holder: object, path: str, field: str, where: str) -> object:
    """The value at `path`; None if an object on the path is null."""
    if holder is None:
        return None
    if isinstance(holder, list):
        return [_value(one, path, field, where) for one in holder]
    if not isinstance(holder, Mapping):
        raise InputError(f"there is no {path!r} in a {type(holder).__name__}", file=where, field=field, fix="Name the whole column")
    if path in holder:
        return holder[path]
    head, dot, rest = path.partition(".")
    if not dot or head not in holder:
        known = [str(name)[:_LONGEST_NAME] for name in islice(holder, _MOST_NAMES)]
        said = f"{suggest(head, known)}. Correct data.columns in the recipe, or --column"
        raise InputError("there is no such column", file=where, field=field, value=path, fix=said)
    return _value(holder[head], rest, field, where)


def _group(value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise InputError("a string or a whole number is expected", file=where, field="group", value=value)
    return str(value)
