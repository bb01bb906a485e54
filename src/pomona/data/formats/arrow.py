"""Rows of plain Python values from Arrow tables, the form of Parquet files and hub data sets."""

from __future__ import annotations

import datetime
import decimal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pomona.data.formats.rows import Row, place
from pomona.errors import InputError

if TYPE_CHECKING:
    import pyarrow

# Not UTF-8, a time out of range, an unknown time zone, a type that Python lacks.
_UNREADABLE = (ValueError, OverflowError, LookupError, TypeError, NotImplementedError)
INSTALL_DATA = 'Install it with `pip install "pomona[data]"`'


def table_rows(table: pyarrow.Table, source: Path | str) -> list[Row]:
    """The table's rows, numbered from 1.

    Times and dates become ISO 8601 texts, and decimals become texts. Nulls stay None, and NaN and bytes stay unchanged: a task
    refuses them where it expects a text, and a column that no task reads may contain anything.

    Raises:
        InputError: no rows, two columns with one name, or a value that Python cannot hold (a text that is not UTF-8, a time out of
            range); the row is named.
    """
    if table.num_rows == 0:
        raise InputError("has no rows", file=source)
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise InputError("two columns have one name", file=source, value=twice[0], fix="Rename one")
    try:
        records = table.to_pylist()
    except _UNREADABLE as error:
        raise _unreadable(table, source, error) from error
    return [Row(number, {name: _plain(value) for name, value in one.items()}) for number, one in enumerate(records, start=1)]


def _plain(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    return str(value) if isinstance(value, decimal.Decimal) else value


def _unreadable(table: pyarrow.Table, source: Path | str, error: Exception) -> InputError:
    """The error of `to_pylist` for a table, with the row, found by converting row by row."""
    for number in range(table.num_rows):
        try:
            table.slice(number, 1).to_pylist()
        except _UNREADABLE as found:
            return InputError(f"holds a value that cannot be read: {found}", file=place(source, number + 1), fix="Fix the row")
    return InputError(f"holds a value that cannot be read: {error}", file=source)
