from __future__ import annotations

import json
from pathlib import Path

import pytest

from pomona.data import Row, examples, number_rows, read_jsonl
from pomona.data.tasks import Summarization
from pomona.errors import InputError


def test_rows_keep_their_line_numbers_and_text(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    # A line separator of Unicode inside a text is not the end of the line; the mark at the start is not text.
    path.write_bytes('\ufeff{"id": 1, "t": "a\u2028b"}\r\n\n   \n{"id": "2", "t": "é"}'.encode())
    assert read_jsonl(path) == [Row(1, {"id": 1, "t": "a\u2028b"}), Row(4, {"id": "2", "t": "é"})]


def test_an_escaped_pair_of_surrogates_is_one_character(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"t": "\\ud83d\\ude00"}')
    assert read_jsonl(path)[0].fields == {"t": "😀"}


def test_examples_are_in_order_with_ids_from_the_row_or_the_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [{"id": "x", "document": "d", "summary": "s"}, {"document": "e", "summary": "t"}]
    path.write_text("\n\n".join(map(json.dumps, rows)))
    made = examples(read_jsonl(path), Summarization(), path)
    assert [(example.id, example.document) for example in made] == [("x", "d"), ("data.jsonl:3", "e")]


def test_a_task_s_refusal_names_file_line_and_field() -> None:
    rows = number_rows([{"document": "d", "summary": "s"}, {"document": "d", "summary": 5}])
    with pytest.raises(InputError) as caught:
        examples(rows, Summarization(), "some/data.jsonl")
    assert str(caught.value) == "some/data.jsonl:2: summary: is 5: a text is expected. Mend the row or remove it."


def test_a_missing_field_says_which_fields_the_row_has() -> None:
    with pytest.raises(InputError, match=r"^x:1: summary: is missing: a text is expected; the row has document, text\."):
        examples(number_rows([{"document": "d", "text": "s"}]), Summarization(), "x")
