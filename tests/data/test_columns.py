from __future__ import annotations

import pytest

from pomona.data import Row, examples, make_splits, number_rows
from pomona.data.columns import mapped
from pomona.data.splits import SplitSizes
from pomona.data.tasks import ExtractiveQA, Summarization
from pomona.errors import InputError


def one(fields: dict[str, object], **columns: str) -> dict[str, object]:
    (row,) = mapped([Row(3, fields)], columns, "x.jsonl")
    assert row.line == 3
    return dict(row.fields)


def test_a_column_moves_to_its_field_and_the_rest_stays() -> None:
    assert one({"abstract": "a", "title": "t", "year": 1}, document="abstract", summary="title") == {
        "document": "a",
        "summary": "t",
        "year": 1,
    }
    # Alpaca's optional `input` must not be read twice, once as the instruction.
    assert one({"input": "i", "output": "o"}, instruction="input") == {"instruction": "i", "output": "o"}


def test_columns_change_places_and_one_column_may_be_two_fields() -> None:
    assert one({"document": "d", "summary": "s"}, document="summary", summary="document") == {"document": "s", "summary": "d"}
    assert one({"text": "t"}, document="text", summary="text") == {"document": "t", "summary": "t"}
    assert one({"text": "t"}, text="text") == {"text": "t"}


def test_a_joined_column_moves_too() -> None:
    assert one({"source": ["a", "b"], "target": ["t"]}, document="source[]", references="target") == {
        "document": "a b",
        "references": ["t"],
    }


def test_what_names_a_row_stays_where_it_is() -> None:
    (row,) = mapped([Row(1, {"title": "t", "key": 5})], {"group": "title", "id": "key"}, "x")
    assert row == Row(1, {"title": "t", "key": 5, "id": 5}, group="t")


@pytest.mark.parametrize(
    ("fields", "path", "value"),
    [
        ({"translation": {"en": "yes", "sw": "ndiyo"}}, "translation.sw", "ndiyo"),
        ({"answers": [{"text": "a"}, {"text": "b"}]}, "answers.text", ["a", "b"]),
        ({"answers": {"text": ["a", "b"]}}, "answers.text", ["a", "b"]),
        ({"a": [{"b": [{"c": 1}, {"c": 2}]}, {"b": []}]}, "a.b.c", [[1, 2], []]),
        ({"answers": []}, "answers.text", []),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"x": {"a.b": 1}}, "x.a.b", 1),
        ({"translation": None}, "translation.en", None),
        ({"answers": [{"text": "a"}, None]}, "answers.text", ["a", None]),
        ({"sentences": ["One. ", "Two."]}, "sentences[]", "One. Two."),
        ({"a": {"b": ["x", "y"]}}, "a.b[]", "x y"),
        ({"a[]": "own name"}, "a[]", "own name"),
        ({"sentences": None}, "sentences[]", None),
    ],
)
def test_a_path_goes_into_objects_and_lists(fields: dict[str, object], path: str, value: object) -> None:
    assert one(fields, answers=path)["answers"] == value


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"source": "one text"}, "source[]", "[] joins a list of texts, and this is none (got 'source[]'). Leave [] out"),
        ({"source": ["a", 1]}, "source[]", "[] joins a list of texts, and this is none"),
        ({"abstrct": "a", "title": "t"}, "abstract", "there is no such column (got 'abstract'). Did you mean 'abstrct'? Known: ab"),
        ({"t": {"en": "a"}}, "t.fr", "there is no such column (got 'fr'). Known: en."),
        ({"t": {"en": "a"}}, "u.en", "there is no such column (got 'u.en'). Known: t."),
        ({"t": "a"}, "t.en", "there is no 'en' in a str"),
        ({"answers": [{"text": "a"}, {"start": 1}]}, "answers.text", "there is no such column (got 'text'). Known: start."),
        ({"answers": ["a"]}, "answers.text", "there is no 'text' in a str"),
        ({}, "a", "there is no such column (got 'a'). Known: none."),
    ],
)  # fmt: skip
def test_a_missing_column_says_where_and_what_is_there(fields: dict[str, object], path: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        one(fields, document=path)
    assert str(caught.value).startswith(f"x.jsonl:3: document: {message}")


def test_a_row_with_very_many_columns_gives_a_short_error() -> None:
    with pytest.raises(InputError) as caught:
        one({f"{n}{'x' * 1000}": n for n in range(1000)}, document="a")
    assert len(str(caught.value)) < 1500


def test_a_group_is_a_text_or_a_number_or_null() -> None:
    rows = mapped(number_rows([{"p": "a"}, {"p": 7}, {"p": None}]), {"group": "p"}, "x")
    assert [row.group for row in rows] == ["a", "7", None]
    for value in (True, 0.5, " ", ["a"]):
        with pytest.raises(InputError, match=r"^x:1: group: a string or a whole number is expected \(got"):
            mapped(number_rows([{"p": value}]), {"group": "p"}, "x")


def test_neither_a_given_group_nor_the_task_s_own_crosses_splits() -> None:
    """Each context has questions in two given groups, and each group has two contexts: rings of four rows hang together."""
    rows = [
        {
            "context": f"Context {ring}.{place // 2}.",
            "question": f"q{place}",
            "answers": ["a"],
            "page": f"{ring}.{(place + 1) // 2 % 2}",
        }
        for ring in range(8)
        for place in range(4)
    ]
    pool = examples(mapped(number_rows(rows), {"group": "page"}, "x"), ExtractiveQA(), "x")
    assert {one.group for one in pool} == {f"group:{ring}.{half}" for ring in range(8) for half in range(2)}
    splits = make_splits(pool, sizes=SplitSizes(train=4, micro_dev=3, dev=5, test=4), seed=0)
    homes: dict[str, set[str]] = {}
    for name, part in splits.named():
        for example in part:
            homes.setdefault(example.document[8], set()).add(name)
    assert all(len(names) == 1 for names in homes.values())
    assert [len(part) for _, part in splits.named()] == [4, 3, 5, 4]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"Documents": "d", "summary": "s"},
            "Did you mean the column 'Documents'? Say which column it is: data.columns: {document: Docu",
        ),
        (
            {"article": "d", "summary": "s"},
            "the row has article, summary. Say which column it is: data.columns: {document: COLU",
        ),
        (
            {"document": "d", "highlights": "s"},
            "data.columns: {summary: COLUMN} in a recipe, `columns` summary=COLUMN with `data`.",
        ),
        ({"document": None, "summary": "s"}, "document: is null: a text is expected. Fix the row or remove it."),
        ({"id": "1"}, "document: is missing: a text is expected; the row has id. Fix the row or remove it."),
    ],
)
def test_a_field_without_a_column_says_how_to_name_it(row: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as error:
        examples([Row(3, row)], Summarization(), "data.jsonl")
    assert said in str(error.value)
    assert str(error.value).startswith("data.jsonl:3: ")
