"""The pool that several files make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pomona.data.tasks import ExtractiveQA, Summarization
from pomona.errors import InputError
from pomona.runs.examples import read_examples, read_splits, skipped_rows
from pomona.runs.read_recipe import parse_recipe
from pomona.runs.recipe import Data, Recipe


def write(path: Path, *rows: dict[str, Any]) -> str:
    """A file of JSON lines; returns its path."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def summary(word: str, **more: Any) -> dict[str, Any]:
    """A row of the task `summarization`."""
    return {"document": f"About {word}.", "summary": word, **more}


def test_several_files_make_one_pool_in_their_order(tmp_path: Path) -> None:
    files = [write(tmp_path / name, summary(name[0]), summary(name[0] * 2)) for name in ("b.jsonl", "a.jsonl")]
    found = read_examples(Data(train=tuple(files)), Summarization(), None, 0)
    assert [example.target for example in found] == [" b", " bb", " a", " aa"]
    assert [example.id for example in found] == ["b.jsonl:1", "b.jsonl:2", "a.jsonl:1", "a.jsonl:2"]


def test_an_id_that_two_files_have_is_made_unique(tmp_path: Path) -> None:
    """Files of one name in two folders, and translations with the ids of the original."""
    english = write(tmp_path / "en" / "train.jsonl", summary("one", id="q1"), summary("two"))
    arabic = write(tmp_path / "ar" / "train.jsonl", summary("uno", id="q1"), summary("due"), summary("tre", id="q3"))
    found = read_examples(Data(train=(english, arabic)), Summarization(), None, 0)
    assert [example.id for example in found] == ["1:q1", "1:train.jsonl:2", "2:q1", "2:train.jsonl:2", "q3"]


def test_splits_are_drawn_from_all_files(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.jsonl", *(summary(f"{name}{number}") for number in range(6))) for name in ("x", "y")]
    content = {
        "data": {"train": files},
        "splits": {"train": 4, "micro_dev": 2, "dev": 2, "test": 4},
        "sources": [{"name": "one", "adapter": "one"}],
    }
    recipe = parse_recipe(content, Recipe)
    splits = read_splits(recipe)
    drawn = [example.target.strip() for one in (splits.train, splits.micro_dev, splits.dev, splits.test) for example in one]
    assert sorted(drawn) == sorted(f"{name}{number}" for name in ("x", "y") for number in range(6))
    assert parse_recipe(recipe.resolved(), Recipe) == recipe


@pytest.mark.parametrize(
    ("given", "problem"), [(["a", "a"], "`train` names a twice"), ([], "a list of these is expected"), ([["a"]], "a list of")]
)
def test_a_list_of_files_that_makes_no_sense(given: list[str], problem: str) -> None:
    content = {"data": {"train": given}, "sources": [{"name": "one", "adapter": "one"}]}
    with pytest.raises(InputError, match=problem):
        parse_recipe(content, Recipe)


def test_an_error_names_the_file_of_the_list(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.jsonl", summary("one")), write(tmp_path / "bad.jsonl", {"document": "no summary"})
    with pytest.raises(InputError, match=r"bad\.jsonl:1"):
        read_examples(Data(train=(good, bad)), Summarization(), None, 0)


def test_rows_whose_answers_are_cut_off_the_context_are_skipped_and_counted(tmp_path: Path) -> None:
    context = "Plums ripen in August. Pears ripen in September."
    rows = [
        {"context": context, "question": "Plums?", "answers": ["August"]},
        {"context": context, "question": "Pears?", "answers": ["September"]},
        {"context": context, "question": "Both?", "answers": ["in September", "in August"]},
    ]
    file = write(tmp_path / "qa.jsonl", *rows)
    data, task = Data(train=file, incomplete_rows="skip"), ExtractiveQA(max_document_characters=25, cut_answers="refuse")
    assert [example.id for example in read_examples(data, task, None, 0)] == ["qa.jsonl:1", "qa.jsonl:3"]
    assert skipped_rows(data, task) == [f"left out of {file}, incomplete: 1 rows, such as line 2"]
    assert len(read_examples(data, ExtractiveQA(max_document_characters=25), None, 0)) == 3
    with pytest.raises(InputError, match=r"qa\.jsonl:2.*none is in the first 25 characters of the context"):
        read_examples(Data(train=file), task, None, 0)
