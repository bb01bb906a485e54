"""Examples from rows; an error names the place and the field of the row that the task refuses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pomona.data.example import Example
from pomona.data.formats.rows import Row, place
from pomona.data.tasks.base import Task
from pomona.data.tasks.fields import FieldError
from pomona.errors import InputError


def examples(rows: Iterable[Row], task: Task, source: Path | str, *, skip_incomplete: bool = False) -> tuple[Example, ...]:
    """Convert each row to the task's example.

    A row's own group (the field `group` of `mapped`) replaces the task's. Splits keep equal documents together whatever their
    groups, so neither a group nor a document crosses splits, and intervals are clustered by the given group.

    Args:
        rows: from `read_rows` or `number_rows`.
        task: says which fields a row needs.
        source: the file or corpus, for errors (`source:line`) and for the ids of rows that have none (`name:line`).
        skip_incomplete: skip rows with a field that the task cannot use, instead of refusing them.

    Raises:
        InputError: a row that the task refuses, with its place and field.
    """
    made: list[Example] = []
    for row in rows:
        where = place(source, row.line)
        try:
            example = task.example(row.fields, _default_id(row, source))
        except FieldError as error:
            if skip_incomplete:
                continue
            fix = error.fix or "Fix the row or remove it"
            raise InputError(error.problem, file=where, field=error.field, fix=fix) from error
        except ValueError as error:
            raise InputError(str(error), file=where, fix="Fix the row or remove it") from error
        made.append(example if row.group is None else replace(example, group=f"group:{row.group}"))
    return tuple(made)


def incomplete_rows(rows: Iterable[Row], task: Task, source: Path | str) -> list[int]:
    """The lines of the rows that `skip_incomplete` leaves out."""
    lines = []
    for row in rows:
        try:
            task.example(row.fields, _default_id(row, source))
        except FieldError:
            lines.append(row.line)
        except ValueError:
            continue
    return lines


def _default_id(row: Row, source: Path | str) -> str:
    return f"{Path(source).name}:{row.line}"
