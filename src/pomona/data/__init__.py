"""Data: rows in, examples and splits out; no model."""

from pomona.data.example import Example, Splits
from pomona.data.formats import Row, examples, number_rows, read_jsonl
from pomona.data.splits import SplitSizes, check_leaks, fingerprint, make_splits

__all__ = [
    "Example",
    "Row",
    "SplitSizes",
    "Splits",
    "check_leaks",
    "examples",
    "fingerprint",
    "make_splits",
    "number_rows",
    "read_jsonl",
]
