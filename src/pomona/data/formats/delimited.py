"""CSV and TSV: a header, then one row of texts per record."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pomona.data.formats.rows import Row, read_text
from pomona.errors import InputError


def parse_csv(path: Path) -> list[Row]:
    """The rows of a comma-separated file; see `parse_delimited`."""
    return parse_delimited(path, ",")


def parse_tsv(path: Path) -> list[Row]:
    """The rows of a tab-separated file, quoted like CSV; see `parse_delimited`."""
    return parse_delimited(path, "\t")


def parse_delimited(path: Path, delimiter: str) -> list[Row]:
    """The rows below the header, every value a text, each with the line on which it begins. Blank lines are skipped.

    A value in double quotes may contain the delimiter, line ends, and doubled quotes.

    Raises:
        InputError: the file cannot be read or has no rows; a column has no name or two have the same; a row and the header have
            different numbers of values; unmatched quotes; a null byte. The error names `file:line`.
    """
    text = read_text(path)
    null = text.find("\0")
    if null >= 0:
        line = text.count("\n", 0, null) + 1
        raise InputError("holds a null byte", file=f"{path}:{line}", fix="Save the file as UTF-8 text")
    with _fields_as_long_as(len(text)):
        records = _records(text, delimiter, path)
        first, header = next(records, (1, []))
        names = _column_names(header, f"{path}:{first}") if header else []
        rows: list[Row] = []
        for line, values in records:
            if len(values) != len(names):
                raise InputError(
                    f"has {len(values)} values, the header has {len(names)}",
                    file=f"{path}:{line}",
                    fix="Put a value that contains the delimiter or a line end in double quotes",
                )
            rows.append(Row(line, dict(zip(names, values, strict=True))))
    if not rows:
        raise InputError("has no rows", file=path, fix="Write the columns' names on the first line and a row on each one below")
    return rows


def _records(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """(first line, values) of each record that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"quotes that do not match: {error}",
                file=f"{path}:{line}",
                fix='Close the quotes; within them, write a quote as ""',
            ) from error
        if values is None:
            return
        if values:
            yield line, values


def _column_names(header: list[str], where: str) -> list[str]:
    names = [name.strip() for name in header]
    for index, name in enumerate(names, start=1):
        if not name:
            raise InputError(f"column {index} has no name", file=where, fix="The first line names the columns")
        if name in names[: index - 1]:
            raise InputError("two columns have one name", file=where, value=name, fix="The first line names the columns")
    return names


@contextmanager
def _fields_as_long_as(characters: int) -> Iterator[None]:
    """Raise csv's global limit on a value's length, 131,072 characters, which a document may exceed."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, characters))
    try:
        yield
    finally:
        csv.field_size_limit(before)
