"""Data: rows in, examples and splits out; no model."""

from pomona.data.example import Example, Splits, Turn
from pomona.data.formats import Row, number_rows, read_jsonl, read_rows
from pomona.data.from_rows import examples, incomplete_rows
from pomona.data.leaks import check_leaks
from pomona.data.splits import SplitSizes, fingerprint, make_splits

__all__ = [
    "Example",
    "Row",
    "SplitSizes",
    "Splits",
    "Turn",
    "check_leaks",
    "examples",
    "fingerprint",
    "incomplete_rows",
    "make_splits",
    "number_rows",
    "read_jsonl",
    "read_rows",
]
