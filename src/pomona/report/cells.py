"""A table as plain values: rows of cells, which the page and the model card format differently."""

from __future__ import annotations

from dataclasses import dataclass

Row = tuple["Cell", ...]


@dataclass(frozen=True)
class Cell:
    """A value, and a note in smaller letters (its interval, its description); `alarm`: the value needs attention."""

    text: str
    note: str = ""
    alarm: bool = False


@dataclass(frozen=True)
class Column:
    """A column's heading; numbers are aligned right."""

    heading: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        columns: the headings; the first column names the row.
        rows: each has one cell for each column.
        strong: index of the highlighted row, or None.
        note: how to read the table, in one or two sentences.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    strong: int | None = None
    note: str = ""
