"""Reading any source of rows: the suffix says which reader, the prefix `hub:` that it is no file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pomona.data.columns import mapped
from pomona.data.formats.delimited import parse_csv, parse_tsv
from pomona.data.formats.hub import parse_hub
from pomona.data.formats.json_array import parse_json
from pomona.data.formats.json_lines import parse_lines
from pomona.data.formats.parquet import parse_parquet
from pomona.data.formats.rows import HUB, Row, read_bytes, refuse_repeated_ids
from pomona.errors import InputError

_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".csv": parse_csv,
    ".json": parse_json,
    ".jsonl": parse_lines,
    ".ndjson": parse_lines,
    ".parquet": parse_parquet,
    ".tsv": parse_tsv,
}


def read_rows(source: Path | str, columns: Mapping[str, str] | None = None) -> list[Row]:
    """Read a file of any known kind, or a data set of the hub.

    Args:
        source: a file that ends in .csv, .json, .jsonl, .ndjson, .parquet or .tsv, or `hub:owner/name[:config][@split]`.
        columns: a task's field -> the column that it is read from; see `mapped`. What is not named keeps its name.

    Raises:
        InputError: whatever is wrong with the source, in one line: `file:line` or `file, row n`, what, and how to fix it.
        MissingPackageError: Parquet or the hub without the packages that read them.
    """
    if str(source).startswith(HUB):
        rows = parse_hub(str(source))
    else:
        path = Path(source)
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            read_bytes(path, 0)  # that there is no such file is the better answer
            raise InputError(
                "a kind of file that is not known",
                file=path,
                value=path.suffix,
                fix=f"Known: {', '.join(_READERS)}, and {HUB}owner/name for a data set of the hub",
            )
        rows = reader(path)
    if columns:
        rows = mapped(rows, columns, source)
    refuse_repeated_ids(rows, source)
    return rows
