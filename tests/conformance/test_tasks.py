"""What every registered task must do, on a row that all of them understand and on real data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.data import examples, read_jsonl
from pomona.data.tasks import Task, tasks
from pomona.errors import InputError
from pomona.metrics import metrics

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
ROWS: dict[str, dict[str, object]] = {
    "summarization": {"document": "A long text about trees.", "summary": "Trees.", "references": ["Trees.", "On trees."]},
    "extractive_qa": {"context": "Trees bear fruit.", "question": "What bears fruit?", "answers": ["Trees", "trees"]},
}
SETS = {"summarization": ["scitldr/en", "scitldr_title/en", "csl_title/zh"], "extractive_qa": ["xquad/ar", "mlqa/zh", "jsquad/ja"]}


@pytest.fixture(params=list(tasks))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def task(name: str) -> Task:
    return tasks.create(name)


def test_prompt_and_completion_meet_at_one_space(name: str, task: Task) -> None:
    example = task.example(ROWS[name], "row 1")
    assert example.id == "row 1"
    assert example.prompt == example.prompt.rstrip()
    assert example.target == f" {example.target.strip()}"


def test_the_target_is_a_reference_that_parse_gives_back(name: str, task: Task) -> None:
    example = task.example(ROWS[name], "row 1")
    assert task.parse(example.target) == example.references[0]
    assert task.parse(f"{example.target}\n\nand more") == example.references[0]
    assert all(task.parse(reference) == reference for reference in example.references)


def test_the_prompt_does_not_hold_the_target_s_fields(name: str, task: Task) -> None:
    marked = {key: value if key in ("document", "context", "question") else ["TARGET"] for key, value in ROWS[name].items()}
    marked = {key: value[0] if key == "summary" else value for key, value in marked.items()}  # pyright: ignore[reportIndexIssue]
    example = task.example(marked, "row 1")
    assert "TARGET" in example.references
    assert "TARGET" not in example.prompt


def test_a_document_of_any_length_leaves_the_frame_whole(name: str, task: Task) -> None:
    key = "document" if "document" in ROWS[name] else "context"
    short, long = (task.example(ROWS[name] | {key: text}, "1") for text in ("x", "x" * 100_000))
    head, tail = short.prompt.split("x", 1)
    assert long.prompt.startswith(f"{head}x")
    assert long.prompt.endswith(tail)
    assert len(long.prompt) < 10_000
    assert len(long.document) == 100_000


def test_each_missing_blank_or_mistyped_field_is_named(name: str, task: Task) -> None:
    for field in ROWS[name]:
        if field == "references":
            continue
        without = {key: value for key, value in ROWS[name].items() if key != field}
        for bad in (
            without,
            ROWS[name] | {field: " "},
            ROWS[name] | {field: 7},
            ROWS[name] | {field: None},
            ROWS[name] | {field: {}},
        ):
            with pytest.raises(ValueError, match=rf"^{field}: is "):
                task.example(bad, "row 1")


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters()))
def test_parse_takes_any_string_and_gives_one_stripped_line(text: str) -> None:
    for name in tasks:
        answer = tasks.create(name).parse(text)
        assert answer == answer.strip()
        assert len(answer.splitlines()) <= 1
        assert bool(answer) == bool(text.strip())


def test_its_metrics_exist_and_take_its_language(task: Task) -> None:
    assert task.metrics
    for metric in task.metrics:
        assert metrics.create(metric, {"language": "zh-hant"})


def test_it_says_what_it_is_and_refuses_a_limit_of_zero(name: str) -> None:
    assert len(tasks.describe(name)) > 20
    with pytest.raises(InputError, match="max_new_tokens"):
        tasks.create(name, {"max_new_tokens": 0})


def test_real_rows_become_examples(name: str, task: Task) -> None:
    for path in SETS[name]:
        file = DATA / path / "test.jsonl"
        if not file.exists():
            pytest.skip(f"{file} is absent")
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        made = examples(read_jsonl(file), task, file)
        assert [example.id for example in made] == [row["id"] for row in rows]
        first_answers = [row["answers"][0] if "answers" in row else row["summary"] for row in rows]
        assert [example.target.split() for example in made] == [answer.split() for answer in first_answers]
