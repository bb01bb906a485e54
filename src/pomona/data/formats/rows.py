"""The rows that every reader returns, and the checks that all readers share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pomona.errors import InputError
from pomona.plain_files import open_plain
from pomona.stand_ins import refuse_pointer

HUB = "hub:"
LARGEST_BYTES = 2**31
"""Of a file of rows, which is held in memory as a whole."""
_HEAD = 2**12
_HOLE = 64  # bytes
_WITHOUT_LINES = (".json", ".parquet")


@dataclass(frozen=True)
class Row:
    """One parsed object of a data file.

    Args:
        line: its line in the file, from 1, or its row number, from 1, if the source has no lines (see `place`).
        fields: field name -> value.
        group: the user's name of the document that the row comes from, if any.
    """

    line: int
    fields: Mapping[str, object]
    group: str | None = None


def number_rows(rows: Iterable[Mapping[str, object]]) -> list[Row]:
    """Rows that do not come from a file (a corpus), numbered from 1."""
    return [Row(number, fields) for number, fields in enumerate(rows, start=1)]


def place(source: Path | str, line: int) -> str:
    """The place of a row, for errors: `file:line`, or `file, row n` for JSON arrays, Parquet and the hub."""
    return f"{source}:{line}" if _has_lines(source) else f"{source}, row {line}"


def _has_lines(source: Path | str) -> bool:
    return not str(source).startswith(HUB) and Path(source).suffix.lower() not in _WITHOUT_LINES


def read_bytes(path: Path, count: int = -1) -> bytes:
    """The file's content, or its first `count` bytes.

    Raises:
        InputError: the file is missing, is a folder or a Git LFS pointer, or cannot be read.
    """
    try:
        with open_plain(path) as file:
            content = file.read(count if count >= 0 else _HEAD)
            refuse_pointer(path, content)
            if count >= 0:
                return content
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST_BYTES:
                problem = f"has {size:,} bytes, and {LARGEST_BYTES:,} at most are read"
                raise InputError(problem, file=path, fix="Split it, or draw the examples that are needed")
            if len(content) >= _HOLE and not content.strip(b"\0"):
                raise InputError("is no text: it begins with NUL characters alone", file=path, fix="Copy it again from its source")
            return content + file.read()
    except FileNotFoundError as error:
        raise InputError("no such file", file=path, fix="Check the path") from error
    except IsADirectoryError as error:
        raise InputError("is a folder; a file is expected", file=path, fix="Name the file in it") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", file=path) from error


def read_text(path: Path) -> str:
    """The file's content as text: UTF-8, without a byte order mark at its start.

    Raises:
        InputError: the file cannot be read or is not UTF-8; the error names the line and the byte.
    """
    content = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = error.start - content.rfind(b"\n", 0, error.start)
        raise InputError(
            f"not UTF-8: byte {content[error.start]:#04x} at {byte}", file=f"{path}:{line}", fix="Save the file as UTF-8"
        ) from error


def refuse_half_pairs(fields: Mapping[str, object], where: str) -> None:
    """Refuse half of a surrogate pair in any text of a row: a JSON escape can write one, but no tokenizer or file accepts it."""
    try:
        json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            "contains half of a surrogate pair (\\ud800 to \\udfff)", file=where, fix="Write the whole character"
        ) from error


def refuse_repeated_ids(rows: Iterable[Row], source: Path | str) -> None:
    """Refuse two rows with the same `id`; rows without an id are accepted."""
    line_of_id: dict[str, int] = {}
    for row in rows:
        if row.fields.get("id") is None:
            continue
        id = str(row.fields["id"])
        first = line_of_id.setdefault(id, row.line)
        if first != row.line:
            raise InputError(
                f"this id is already {'on line' if _has_lines(source) else 'in row'} {first}",
                file=place(source, row.line),
                field="id",
                value=id,
                fix="Give each row its own id",
            )
