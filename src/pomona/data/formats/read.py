"""Read rows from any source: the suffix selects the reader, the prefix `hub:` a data set of the hub."""

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
        columns: a task's field -> its column; see `mapped`. Other columns keep their names.

    Raises:
        InputError: any fault of the source, in one line: `file:line` or `file, row n`, the problem, and the fix.
        MissingPackageError: the package for Parquet or the hub is not installed.
    """
    if str(source).startswith(HUB):
        rows = parse_hub(str(source))
    else:
        path = Path(source)
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            read_bytes(path, 0)  # reports a missing file first
            raise InputError(
                "unknown file format",
                file=path,
                value=path.suffix,
                fix=f"Known: {', '.join(_READERS)}, and {HUB}owner/name for a data set of the hub",
            )
        rows = reader(path)
    if columns:
        rows = mapped(rows, columns, source)
    refuse_repeated_ids(rows, source)
    return rows
