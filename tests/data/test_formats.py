from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pomona.data import Row, examples, number_rows, read_jsonl, read_rows
from pomona.data.tasks import ExtractiveQA, Summarization
from pomona.errors import InputError

SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "Trees",
            "paragraphs": [
                {
                    "context": "Pears ripen late. Plums do not.",
                    "qas": [
                        {
                            "id": "a",
                            "question": "What ripens late?",
                            "answers": [{"text": "Pears", "answer_start": 0}, {"text": "Pears", "answer_start": 0}],
                        },
                        {"id": "b", "question": "What does not?", "answers": [{"text": "Plums", "answer_start": 18}]},
                    ],
                },
                {"context": "No one asks.", "qas": []},
            ],
        },
        {"paragraphs": [{"context": "Figs.", "qas": [{"question": "What?"}]}]},
    ],
}


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


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
    assert str(caught.value) == "some/data.jsonl:2: summary: is 5: a text is expected. Fix the row or remove it."


@pytest.mark.parametrize("source", ["some/data.json", Path("data.PARQUET"), "hub:owner/name@test"])
def test_where_there_are_no_lines_the_row_is_named(source: Path | str) -> None:
    with pytest.raises(InputError) as caught:
        examples([Row(2, {"document": "d", "summary": 5})], Summarization(), source)
    assert str(caught.value).startswith(f"{source}, row 2: summary: is 5")


def test_a_missing_field_says_which_fields_the_row_has() -> None:
    with pytest.raises(InputError, match=r"^x:1: summary: is missing: a text is expected; the row has document, text\."):
        examples(number_rows([{"document": "d", "text": "s"}]), Summarization(), "x")


def test_a_group_of_the_row_takes_the_place_of_the_task_s() -> None:
    fields = {"context": "Figs are sweet.", "question": "What is sweet?", "answers": ["Figs"]}
    own, given = examples([Row(1, fields), Row(2, fields, group="page 7")], ExtractiveQA(), "x")
    assert given.group == "group:page 7"
    assert own.group not in (None, given.group)
    assert own.document == given.document


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", '{"a": "x", "b": ["1"]}\n{"a": "é", "b": null}\n'),
        ("rows.NDJSON", '{"a": "x", "b": ["1"]}\n{"a": "é", "b": null}\n'),
        ("rows.json", '[{"a": "x", "b": ["1"]},\n {"a": "é", "b": null}]'),
        ("rows.json", '\ufeff{"version": 2, "tags": ["t"], "rows": [{"a": "x", "b": ["1"]}, {"a": "é", "b": null}], "more": []}'),
    ],
)
def test_the_suffix_says_how_a_file_is_read(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert read_rows(path) == read_rows(str(path)) == [Row(1, {"a": "x", "b": ["1"]}), Row(2, {"a": "é", "b": None})]


def test_columns_are_mapped_and_ids_compared_afterwards(tmp_path: Path) -> None:
    rows = [{"id": 1, "key": "a", "text": "x"}, {"id": 1, "key": "b", "text": "y"}]
    path = write(tmp_path / "rows.json", rows)
    assert [row.fields["id"] for row in read_rows(path, {"id": "key", "document": "text"})] == ["a", "b"]
    with pytest.raises(InputError, match=r"rows\.json, row 2: id: this id is already in row 1 \(got '1'\)"):
        read_rows(path, {"document": "text"})


def test_squad_s_nested_form_becomes_a_row_a_question(tmp_path: Path) -> None:
    context = "Pears ripen late. Plums do not."
    expected = [
        {"id": "a", "context": context, "title": "Trees", "question": "What ripens late?", "answers": ["Pears", "Pears"]},
        {"id": "b", "context": context, "title": "Trees", "question": "What does not?", "answers": ["Plums"]},
        {"context": "Figs.", "question": "What?"},
    ]
    for value in (SQUAD, SQUAD["data"]):
        rows = read_rows(write(tmp_path / "squad.json", value))
        assert rows == [Row(number, fields) for number, fields in enumerate(expected, start=1)]
    made = examples(rows[:2], ExtractiveQA(), "squad.json")
    assert [one.references for one in made] == [("Pears",), ("Plums",)]
    assert made[0].group == made[1].group


def spoilt(**changes: Any) -> dict[str, Any]:
    """SQuAD whose first question is another."""
    copy = json.loads(json.dumps(SQUAD))
    copy["data"][0]["paragraphs"][0]["qas"][0] |= changes
    return copy


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"data": [{"paragraphs": [3]}]}, "article 1.paragraphs[0]: an object is expected, this is a int"),
        ({"data": [{"paragraphs": []}, {"title": "x"}]}, "article 2.paragraphs: a list is expected, this is null or missing"),
        ({"data": [{"paragraphs": []}, "x"]}, "article 2: an object is expected, this is a str"),
        ({"data": [{"paragraphs": []}]}, "has no rows: its articles hold no questions"),
        (spoilt(answers={"text": ["x"]}), "article 1.paragraphs[0].qas[0].answers: a list is expected, this is a dict"),
        (spoilt(answers=["x"]), "article 1.paragraphs[0].qas[0].answers[0]: an object is expected, this is a str"),
    ],
)
def test_a_broken_squad_says_where(tmp_path: Path, value: object, message: str) -> None:
    path = write(tmp_path / "squad.json", value)
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"document": "d", "summary": "s"}, 'holds no list of objects. Write [{"field": value}, ...], or {"data": [...]}.'),
        ("text", "holds no list of objects"),
        ({"train": [{"a": 1}], "n": 3, "test": [{"a": 2}]}, "holds several lists of objects: 'train', 'test'. Put each list into"),
        ([], "has no rows"),
    ],
)
def test_a_json_file_without_one_list_of_objects_is_refused(tmp_path: Path, value: object, message: str) -> None:
    path = write(tmp_path / "rows.json", value)
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_json_lines_with_a_json_suffix_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    with pytest.raises(InputError, match=r"rows\.json:2: not JSON: Extra data at column 1\. JSON lines belong in a file that ends"):
        read_rows(path)


def test_an_unknown_kind_lists_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert str(caught.value) == (
        f"{path}: unknown file format (got '.gz'). Known: .csv, .json, .jsonl, .ndjson, .parquet, .tsv, and "
        "hub:owner/name for a data set of the hub."
    )


@pytest.mark.parametrize("name", ["gone", "gone.txt", "gone.csv", "gone.json", "gone.jsonl", "gone.parquet", "x" * 300 + ".csv"])
def test_a_missing_file_is_reported_first(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"(no such file\. Check the path\.|cannot be read: File name too long)$"):
        read_rows(tmp_path / name)


@pytest.mark.parametrize("name", ["folder", "folder.jsonl", "folder.csv", "folder.json", "folder.parquet"])
def test_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"is a folder; a file is expected\. Name the file in it\.$"):
        read_rows(tmp_path / name)
