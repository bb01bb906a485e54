"""JSON: an array of objects, an object that contains such an array, or SQuAD's nested form."""

from __future__ import annotations

import json
from pathlib import Path

from pomona.data.formats.rows import Row, place, read_text, refuse_half_pairs
from pomona.data.formats.squad import is_squad, squad_rows
from pomona.data.formats.strict_json import strict_json
from pomona.errors import InputError


def parse_json(path: Path) -> list[Row]:
    """The rows of a JSON file, numbered from 1.

    Args:
        path: a file with an array of objects; with an object that has one list of objects among its values, such as
            `{"version": 1, "data": [...]}`; or with that list in SQuAD's form, where each question becomes a row.

    Raises:
        InputError: the file cannot be read, is not JSON (`file:line`), contains no such list or several, or an entry is not an
            object (`file, row n`).
    """
    text = read_text(path)
    if not text or text.isspace():
        raise _no_rows(path)
    try:
        value = strict_json(text)
    except json.JSONDecodeError as error:
        fix = "JSON lines belong in a file that ends in .jsonl" if error.msg == "Extra data" else "Correct the file"
        raise InputError(f"not JSON: {error.msg} at column {error.colno}", file=f"{path}:{error.lineno}", fix=fix) from error
    except ValueError as error:
        raise InputError(f"not usable JSON: {error}", file=path, fix="Correct or remove the file") from error
    records = _records(value, path)
    if not records:
        raise _no_rows(path)
    if is_squad(records):
        records = squad_rows(records, path)
    rows: list[Row] = []
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise InputError(f"a JSON object is expected, this is a {type(record).__name__}", file=place(path, number))
        if "\\u" in text:
            refuse_half_pairs(record, place(path, number))
        rows.append(Row(number, record))
    return rows


def _records(value: object, path: Path) -> list[object]:
    if isinstance(value, list):
        return value
    lists = {key: one for key, one in value.items() if _begins_with_object(one)} if isinstance(value, dict) else {}
    if len(lists) > 1:
        names = ", ".join(repr(key[:40]) for key in list(lists)[:10])
        raise InputError(f"holds several lists of objects: {names}", file=path, fix="Put each list into its own file")
    if not lists:
        raise InputError("holds no list of objects", file=path, fix='Write [{"field": value}, ...], or {"data": [...]}')
    return next(iter(lists.values()))


def _begins_with_object(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _no_rows(path: Path) -> InputError:
    return InputError("has no rows", file=path, fix="Write an array of objects")
