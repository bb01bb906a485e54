"""Rows from JSON lines, and examples from rows: whatever is wrong with a line is said with its file and number."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pomona.data.example import Example
from pomona.data.tasks.base import Task
from pomona.data.tasks.fields import FieldError
from pomona.errors import InputError


@dataclass(frozen=True)
class Row:
    """One parsed object of a data file.

    Args:
        line: its line in the file, from 1.
        fields: field name -> value.
    """

    line: int
    fields: Mapping[str, object]


def read_jsonl(path: Path | str) -> list[Row]:
    """Read a file of JSON lines: UTF-8, one object a line. Blank lines are skipped; a byte order mark at the start is, too.

    Args:
        path: the file; lines end in a line feed only, so a text may hold any other separator.

    Raises:
        InputError: the file is missing, unreadable or has no rows; a line is not UTF-8, not JSON, not an object, holds NaN or
            Infinity or half of a surrogate pair; or two rows have one `id`. A line's error names `file:line`.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError("no such file", file=path, mend="Check the path") from error
    except IsADirectoryError as error:
        raise InputError("is a folder; a .jsonl file is expected", file=path, mend="Name the file in it") from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path) from error
    rows: list[Row] = []
    line_of_id: dict[str, int] = {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        fields = _parse(line, f"{path}:{number}")
        if fields.get("id") is not None:
            id = str(fields["id"])
            if id in line_of_id:
                raise InputError(
                    f"this id is already on line {line_of_id[id]}",
                    file=f"{path}:{number}",
                    field="id",
                    value=id,
                    mend="Give each row its own id",
                )
            line_of_id[id] = number
        rows.append(Row(number, fields))
    if not rows:
        raise InputError("has no rows", file=path, mend="Put one JSON object on each line")
    return rows


def number_rows(rows: Iterable[Mapping[str, object]]) -> list[Row]:
    """Rows that come from no file (a corpus), numbered from 1."""
    return [Row(number, fields) for number, fields in enumerate(rows, start=1)]


def examples(rows: Iterable[Row], task: Task, source: Path | str) -> tuple[Example, ...]:
    """Each row as the task's example.

    Args:
        rows: from `read_jsonl` or `number_rows`.
        task: says which fields a row needs.
        source: the file or corpus, for errors (`source:line`) and for the ids of rows that have none (`name:line`).

    Raises:
        InputError: a row that the task refuses, with its place and field.
    """
    name = Path(source).name
    made: list[Example] = []
    for row in rows:
        place = f"{source}:{row.line}"
        try:
            made.append(task.example(row.fields, f"{name}:{row.line}"))
        except FieldError as error:
            raise InputError(error.problem, file=place, field=error.field, mend="Mend the row or remove it") from error
        except ValueError as error:
            raise InputError(str(error), file=place, mend="Mend the row or remove it") from error
    return tuple(made)


def _parse(line: bytes, place: str) -> dict[str, object]:
    """The object on one line; `place` is `file:line`."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8: byte {line[error.start]:#04x} at {error.start + 1}", file=place, mend="Save the file as UTF-8"
        ) from error
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InputError(
            f"not JSON: {error.msg} at column {error.colno}", file=place, mend="Put one complete JSON object on each line"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"not usable JSON: {error}", file=place, mend="Mend the row or remove it") from error
    if not isinstance(value, dict):
        raise InputError(
            f"a JSON object is expected, this is a {type(value).__name__}", file=place, mend='Write it as {"field": value}'
        )
    if "\\u" in text:
        # An escape can spell half of a surrogate pair, which no tokenizer and no file can take.
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                "holds half of a surrogate pair (\\ud800 to \\udfff)", file=place, mend="Write the whole character"
            ) from error
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
