"""`pomona init` and `pomona schema`: a recipe that works, from data and adapters."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.end_to_end.setting import call, make_setting, rows

from pomona.api.schema import schema
from pomona.data.formats.rows import Row, number_rows
from pomona.data.guess import guess
from pomona.errors import InputError
from pomona.recipes import packaged, read_packaged
from pomona.runs.new_recipe import source_names, split_sizes
from pomona.runs.read_recipe import parse_recipe
from pomona.runs.read_yaml import read_yaml
from pomona.runs.recipe import Recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("init"))
    with (folder / "own.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Abstract", "headline", "year"])
        writer.writerows([one["document"], one["summary"], 1990 + number] for number, one in enumerate(rows(40)))
    return folder


def test_the_written_recipe_passes_the_check_and_runs(folder: Path) -> None:
    options = ("--data", "own.csv", "-a", "adapters/alpha", "-a", "adapters/beta", "--model", "model")
    done = call(folder, "init", "titles.yaml", *options)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == (
        "40 different examples; the task is title_generation; document from the column Abstract, title from the column headline; "
        "the model is model"
    )
    text = (folder / "titles.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=pomona.schema.json\n")
    assert json.loads((folder / "pomona.schema.json").read_text(encoding="utf-8")) == schema()
    checked = call(folder, "check", "titles.yaml", "--no-trial")
    assert checked.code == 0, checked.out
    assert "8 train" in checked.out
    again = call(folder, "init", "titles.yaml", *options)
    assert (again.code, again.errors) == (2, ["error: titles.yaml: already exists. Name a new file."])
    assert (folder / "titles.yaml").read_text(encoding="utf-8") == text


def test_three_questions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["adapters/alpha adapters/beta", "model", "data.jsonl"])
    asked: list[str] = []

    def prompt(text: str, default: object = None) -> str:
        asked.append(f"{text} [{default}]")
        return next(answers)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", prompt)
    done = call(folder, "init", "asked.yaml")
    assert done.code == 0, done.err
    assert len(asked) == 3
    assert "the task is summarization, whose fields the columns are called by" in done.out


def test_where_nobody_can_be_asked(folder: Path) -> None:
    done = call(folder, "init", "unasked.yaml", "--data", "own.csv")
    assert done.code == 2
    assert done.errors[0].startswith("error: --adapter: is needed where nobody can be asked")
    assert not (folder / "unasked.yaml").exists()


TEXT = "a long text about many things that goes on for quite a while, " * 3
GUESSES: list[tuple[dict[str, object], str, dict[str, str]]] = [
    ({"document": "a", "summary": "b"}, "summarization", {}),
    ({"article": "a", "highlights": "b", "id": "1"}, "summarization", {"document": "article", "summary": "highlights"}),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "chat", {}),
    ({"context": "The sky is blue.", "question": "What is the sky?", "answers": ["blue"]}, "extractive_qa", {}),
    ({"instruction": "a", "input": "", "output": "b"}, "instruction", {}),
    ({"instruction": "a", "response": "b"}, "instruction", {"output": "response"}),
    ({"en": "a", "fr": "b"}, "translation", {"source": "en", "target": "fr"}),
    ({"meaning_representation": "a", "ref": "b"}, "data_to_text", {"input": "meaning_representation", "output": "ref"}),
    ({"x": TEXT, "y": "four words of text"}, "title_generation", {"document": "x", "title": "y"}),
    ({"x": TEXT, "y": TEXT[:90]}, "summarization", {"document": "x", "summary": "y"}),
    ({"prompt": "a", "completion": "b"}, "completion", {}),
]


@pytest.mark.parametrize(("row", "task", "columns"), GUESSES, ids=[", ".join(row) for row, _, _ in GUESSES])
def test_task_and_columns_are_guessed(row: dict[str, object], task: str, columns: dict[str, str]) -> None:
    found = guess(number_rows([row]), "rows")
    assert (found.task, found.columns) == (task, columns)


def test_what_no_task_fits_is_said() -> None:
    with pytest.raises(InputError, match=r"no task fits the columns a, b. Say which with --task and --column"):
        guess([Row(1, {"a": 1, "b": 2})], "rows.csv")
    with pytest.raises(InputError, match="summary: is 3: a text is expected"):
        guess([Row(1, {"document": "a", "b": 3})], "rows.csv", "summarization", {"summary": "b"})
    given = guess([Row(1, {"a": "one", "b": "two"})], "rows.csv", "summarization", {"document": "a", "summary": "b"})
    assert given.columns == {"document": "a", "summary": "b"}


def test_small_data_get_small_splits() -> None:
    assert vars(split_sizes(1000)) == {"train": 50, "micro_dev": 16, "dev": 50, "test": 100}
    for count in (8, 20, 100, 239):
        sizes = vars(split_sizes(count))
        assert sum(sizes.values()) <= count
        assert min(sizes.values()) >= 1
    with pytest.raises(InputError, match="has 7 different examples, and four splits need 8"):
        split_sizes(7)
    assert source_names(["a/b", "c/b/", "hub:o/n@1", "embedded:docstrings-torch"]) == ["b", "b-2", "n", "docstrings-torch"]


def kind_of(content: Any) -> str:
    return "experiment" if "systems" in content else "adapt" if "sources" in content else "train-adapter"


def with_numbers(value: Any) -> Any:
    """`1e-4` is a number for an editor, which reads YAML 1.2."""
    if isinstance(value, dict):
        return {key: with_numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_numbers(one) for one in value]
    try:
        return float(value) if isinstance(value, str) and value[:1].isdigit() else value
    except ValueError:
        return value


def test_packaged_recipes_fit_the_schema() -> None:
    checkers = {verb: jsonschema.Draft202012Validator(schema(verb)) for verb in ("adapt", "train-adapter", "experiment")}
    for one in packaged():
        content = with_numbers(read_yaml(read_packaged(one.name)))
        assert [error.message for error in checkers[kind_of(content)].iter_errors(content)] == [], one.name


def test_the_schema_finds_what_the_reader_refuses() -> None:
    checker = jsonschema.Draft202012Validator(schema())
    good = {"data": {"train": "a.jsonl"}, "sources": [{"name": "a", "adapter": "a"}]}
    assert checker.is_valid(good)
    for wrong in (
        {"tuning": {"epoch": 1}},
        {"task": {"name": "summarisation"}},
        {"task": {"name": "summarization", "max_tokens": 1}},
        {"controller": {"name": "fixed", "ratio": 0.3}},
        {"pruning": {"metric": "wand"}},
        {"sources": []},
    ):
        assert not checker.is_valid(good | wrong), wrong
        with pytest.raises(InputError):
            parse_recipe(good | wrong, Recipe)


def test_every_key_is_explained(folder: Path) -> None:
    printed = call(folder, "schema")
    made = json.loads(printed.out)
    assert made == schema()
    assert [key for key, value in made["properties"].items() if "description" not in value] == []
    assert made["$defs"]["Tuning"]["properties"]["epochs"]["description"] == "passes over the training examples, >= 1."
    assert made["properties"]["controller"]["default"] == "bayes"
    assert call(folder, "schema", "adopt").errors == [
        "error: verb: reads no recipe (got 'adopt'). " + "Did you mean 'adapt'? Known: adapt, experiment, train-adapter."
    ]


def test_quiet_and_verbose(folder: Path) -> None:
    quiet, normal, verbose = [
        call(folder, *more, "train-adapter", "source.yaml", "-o", f"gamma{place}", "--set", "tuning.epochs=1")
        for place, more in enumerate((("--quiet",), (), ("--verbose",)))
    ]
    assert [one.code for one in (quiet, normal, verbose)] == [0, 0, 0]
    assert (quiet.out, quiet.err) == ("14 modules, in gamma0\n".replace("14", quiet.out.split()[0]), "")
    assert "gamma: 0 of" in normal.err
    assert "gamma: 0 of" in verbose.err
