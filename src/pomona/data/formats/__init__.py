"""Readers: one module per file format, chosen by suffix, and one for data sets of the hub."""

from pomona.data.formats.json_lines import read_jsonl
from pomona.data.formats.read import read_rows
from pomona.data.formats.rows import Row, number_rows, place

__all__ = ["Row", "number_rows", "place", "read_jsonl", "read_rows"]
