"""Parquet files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pomona.data.formats.arrow import INSTALL_DATA, table_rows
from pomona.data.formats.rows import Row, read_bytes
from pomona.errors import InputError, MissingPackageError

_MAGIC, _HEAD = b"PAR1", 64
"""What a Parquet file begins with, and the bytes in which the reader knows what stands in for one."""


def parse_parquet(path: Path) -> list[Row]:
    """The rows of a Parquet file, numbered from 1; see `table_rows`.

    Raises:
        InputError: the file cannot be read or is not a complete Parquet file; or as `table_rows`.
        MissingPackageError: pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingPackageError("Parquet files need pyarrow, which is not installed", file=path, fix=INSTALL_DATA)
    import pyarrow
    import pyarrow.parquet

    if (head := read_bytes(path, _HEAD)) and not head.startswith(_MAGIC):  # before a file of any size is read
        raise InputError("not a whole Parquet file: it begins otherwise", file=path, fix="Write it again")
    content = read_bytes(path)
    try:
        table = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content)).read()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"not a whole Parquet file: {str(error).rstrip('. ')}", file=path, fix="Write it again") from error
    return table_rows(table, path)
