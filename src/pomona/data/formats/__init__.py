"""Readers: one file for each kind of file, chosen by its suffix, and one for data sets of the hub."""

from pomona.data.formats.json_lines import read_jsonl
from pomona.data.formats.read import read_rows
from pomona.data.formats.rows import Row, number_rows, place

__all__ = ["Row", "number_rows", "place", "read_jsonl", "read_rows"]
