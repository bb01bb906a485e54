"""JSON lines: one object per line."""

from __future__ import annotations

import json
from pathlib import Path

from pomona.data.formats.rows import Row, read_text, refuse_half_pairs, refuse_repeated_ids
from pomona.data.formats.strict_json import strict_json
from pomona.errors import InputError


def read_jsonl(path: Path | str) -> list[Row]:
    """Read a file of JSON lines: UTF-8, one object a line. Blank lines and a byte order mark at the start are skipped.

    Args:
        path: the file; lines end only in a line feed, so a text may contain any other separator.

    Raises:
        InputError: the file is missing, unreadable or has no rows; a line is not UTF-8, not JSON, not an object, has a key twice,
            nests more than 100 levels, contains NaN, infinity or half of a surrogate pair; or two rows have one `id`. A line's
            error names `file:line`.
    """
    rows = parse_lines(Path(path))
    refuse_repeated_ids(rows, path)
    return rows


def parse_lines(path: Path) -> list[Row]:
    """The rows of `read_jsonl`, without the check for repeated ids."""
    lines = enumerate(read_text(path).split("\n"), start=1)
    rows = [Row(number, _parse(line, f"{path}:{number}")) for number, line in lines if not line.isspace() and line]
    if not rows:
        raise InputError("has no rows", file=path, fix="Put one JSON object on each line")
    return rows


def _parse(line: str, where: str) -> dict[str, object]:
    """The object on one line; `where` is `file:line`."""
    try:
        value = strict_json(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"not JSON: {error.msg} at column {error.colno}", file=where, fix="Put one complete JSON object on each line"
        ) from error
    except ValueError as error:
        raise InputError(f"not usable JSON: {error}", file=where, fix="Fix the row or remove it") from error
    if not isinstance(value, dict):
        raise InputError(
            f"a JSON object is expected, this is a {type(value).__name__}", file=where, fix='Write it as {"field": value}'
        )
    if "\\u" in line:
        refuse_half_pairs(value, where)
    return value
