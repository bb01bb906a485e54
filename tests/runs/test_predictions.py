"""Answers in files: which example each belongs to, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from pomona.data import Example
from pomona.errors import InputError
from pomona.runs.predictions import check_output, prediction_line, read_predictions, write_predictions

EXAMPLES = [Example(id, "p", " t", ("t", "u"), f"document {id}") for id in ("a", "b", "7")]


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refused(path: Path, *rows: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        read_predictions(written(path, *rows), EXAMPLES)
    return str(caught.value).removeprefix(str(path.parent) + "/")


def test_answers_are_found_by_id_and_missing_ones_are_none(tmp_path: Path) -> None:
    rows = ({"id": 7, "prediction": "seven"}, {"id": "elsewhere", "prediction": "x"}, {"id": "a", "prediction": ""})
    assert read_predictions(written(tmp_path / "mine.jsonl", *rows), EXAMPLES) == {"mine": ["", None, "seven"]}


def test_null_is_no_answer_and_an_empty_text_is_one(tmp_path: Path) -> None:
    rows = ({"id": "a", "prediction": None}, {"id": "b", "prediction": ""})
    assert read_predictions(written(tmp_path / "mine.jsonl", *rows), EXAMPLES) == {"mine": [None, "", None]}


def test_rows_of_several_systems(tmp_path: Path) -> None:
    rows = (
        {"id": "b", "predictions": {"zero_shot": "x", "pomona": None}, "document": "is not read"},
        {"id": "a", "predictions": {"zero_shot": "y", "late": "z"}},
        {"id": "not one of ours", "predictions": {"stranger": "x"}},
    )
    found = read_predictions(written(tmp_path / "run.jsonl", *rows), EXAMPLES)
    assert found == {"zero_shot": ["y", "x", None], "pomona": [None, None, None], "late": ["z", None, None]}
    assert list(found) == ["zero_shot", "pomona", "late"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("of.csv", 'id,prediction\n7,"seven, or so"\na,\n'),
        ("of.tsv", "id\tprediction\n7\tseven, or so\na\t\n"),
        ("of.json", '[{"id": 7, "prediction": "seven, or so"}, {"id": "a", "prediction": ""}]'),
    ],
)
def test_other_kinds_of_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_predictions(tmp_path / name, EXAMPLES) == {"of": ["", None, "seven, or so"]}


def test_what_was_written_reads_as_it_was(tmp_path: Path) -> None:
    given = {"zero_shot": ["x", None, 'a "quote"\nand a line'], "runs/pomona": ["日本語 سلام \U0001f98a", "", "\u2028 \x85"]}
    write_predictions(tmp_path / "out.jsonl", EXAMPLES, given)
    assert read_predictions(tmp_path / "out.jsonl", EXAMPLES) == given
    first, *_ = (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(first) == {
        "id": "a", "document": "document a", "prompt": "p", "references": ["t", "u"],
        "predictions": {"zero_shot": "x", "runs/pomona": "日本語 سلام \U0001f98a"},
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_line_has_the_losses_that_are_known_and_the_group() -> None:
    line = prediction_line(EXAMPLES[0], {"one": "x", "two": None}, {"one": 1.25, "two": math.nan})
    assert json.loads(json.dumps(line, allow_nan=False)) == {
        "id": "a", "document": "document a", "prompt": "p", "references": ["t", "u"],
        "predictions": {"one": "x", "two": None}, "losses": {"one": 1.25, "two": None},
    }  # fmt: skip
    grouped = dataclasses.replace(EXAMPLES[0], group="article")
    assert prediction_line(grouped, {"one": "x"})["group"] == "article"
    assert "losses" not in prediction_line(grouped, {"one": "x"})


def test_a_line_with_losses_reads_as_answers(tmp_path: Path) -> None:
    row = prediction_line(EXAMPLES[1], {"one": "x"}, {"one": 0.5})
    assert read_predictions(written(tmp_path / "run.jsonl", row), EXAMPLES) == {"one": [None, "x", None]}


ONE = {"id": "a", "prediction": "x"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prediction": "x"}, "mine.jsonl:2: id: the id of the example is expected, a text or a whole number (got None)"),
        ({"id": None, "prediction": "x"}, "mine.jsonl:2: id: the id of the example is expected"),
        ({"id": True, "prediction": "x"}, "mine.jsonl:2: id: the id of the example is expected"),
        ({"id": ["b"], "prediction": "x"}, "mine.jsonl:2: id: the id of the example is expected"),
        ({"id": "b"}, "mine.jsonl:2: prediction: is missing: a text or null is expected"),
        ({"id": "b", "predictions": ["x"]}, "mine.jsonl:2: prediction: is missing"),
        ({"id": "b", "prediction": 3}, "mine.jsonl:2: prediction: a text or null is expected (got 3)"),
        ({"id": "b", "prediction": ["x"]}, "mine.jsonl:2: prediction: a text or null is expected (got ['x'])"),
        ({"id": "b", "predictions": {"x": "x", "two": 0.5}}, "mine.jsonl:2: predictions.two: a text or null is expected (got 0.5)"),
        ({"id": "elsewhere", "prediction": 3}, "mine.jsonl:2: prediction: a text or null is expected (got 3)"),
        ({"id": "a", "prediction": "y"}, "mine.jsonl:2: id: this id is already on line 1 (got 'a')"),
    ],
    ids=str,
)  # fmt: skip
def test_rows_that_cannot_be_used(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    assert refused(tmp_path / "mine.jsonl", ONE, row).startswith(message)


@pytest.mark.parametrize("row", [{"id": "elsewhere", "prediction": "x"}, {"id": "a", "predictions": {}}], ids=str)
def test_a_file_without_an_answer_to_any_example(tmp_path: Path, row: dict[str, Any]) -> None:
    message = refused(tmp_path / "mine.jsonl", row)
    assert message == "mine.jsonl: has no answer to any of the examples. Give the data that these answers are to."


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.jsonl: no such file"):
        read_predictions(tmp_path / "nowhere.jsonl", EXAMPLES)
    with pytest.raises(InputError, match="has no rows"):
        read_predictions(written(tmp_path / "empty.jsonl"), EXAMPLES)


def test_where_answers_may_be_written(tmp_path: Path) -> None:
    check_output(tmp_path / "new.jsonl")
    for taken in (written(tmp_path / "old.jsonl", ONE), tmp_path):
        with pytest.raises(InputError, match=r"already exists\. Choose another file"):
            check_output(taken)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        check_output(tmp_path / "nowhere" / "new.jsonl")


def test_a_disk_that_refuses_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        write_predictions(tmp_path / "nowhere" / "new.jsonl", EXAMPLES, {"x": ["a", "b", "c"]})
    assert list(tmp_path.iterdir()) == []
